"""The shell for threads: `Queue`."""
