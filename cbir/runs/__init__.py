"""Several runs: comparisons, sweeps and DVC experiments."""
