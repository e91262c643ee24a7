"""`python -m cbir`: the command `cbir` without its installation."""

from cbir.cli.main import main

if __name__ == "__main__":
    main()
