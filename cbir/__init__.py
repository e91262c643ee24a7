"""cbir: reproducible image retrieval as a batch pipeline."""
