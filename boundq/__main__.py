"""``python -m boundq`` is ``boundq``; its entry point."""

import sys


def main() -> None:
    """Run the program. A probe's ``boundq health`` is answered at once: the command line takes longer to load."""
    if sys.argv[1:2] == ["health"]:
        from boundq._health import quick

        code = quick(sys.argv[2:])
        if code is not None:
            sys.exit(code)
    from boundq.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
