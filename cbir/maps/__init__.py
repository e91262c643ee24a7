"""The gallery in two dimensions."""
