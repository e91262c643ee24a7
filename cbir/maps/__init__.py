"""Maps: the gallery in two dimensions."""
