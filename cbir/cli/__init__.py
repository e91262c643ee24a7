"""The command `cbir`: one module for each of its commands."""
