"""The command `cbir`, a module for each of its commands."""
