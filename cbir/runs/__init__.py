"""Several runs against each other: comparisons, sweeps, DVC experiments."""
