"""Data sets: one reader for each layout on disk, packing of their images, and the queries of a run."""
