"""Export of a run: NPY files for notebooks, and TREC's format for trec_eval."""
