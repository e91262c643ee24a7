"""`python -m cbir` is the command `cbir`; it works without installing the package."""

from cbir.cli.main import main

if __name__ == "__main__":
    main()
