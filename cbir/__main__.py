"""The command `cbir`, also as `python -m cbir`, which works without installing the package."""

import sys

from cbir.core.interrupts import say_interrupted


def main() -> None:
    """Run one command; its modules are imported where an interrupt is one line."""
    sys.excepthook = say_interrupted
    from cbir.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
