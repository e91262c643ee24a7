"""A finished run in other formats: NPY for notebooks, TREC for trec_eval."""
