"""``python -m boundq`` is ``boundq``."""

from boundq.cli import main

main()
