"""What boundq costs: `python -m bench` lists the benches, `python -m bench once` runs one."""
