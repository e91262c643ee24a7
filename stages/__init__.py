"""The stages of dvc.yaml, each a sentence: read with the parameters that it declares, do one thing, write."""
