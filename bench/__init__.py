"""What boundq costs: ``python -m bench`` runs all benches, ``python -m bench enqueue`` one. See README.md here."""
