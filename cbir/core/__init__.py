"""Errors, text, files, threads, progress, timing and parameters, for all other packages."""
