"""Errors, text, files, threads, progress and parameters, for all other packages."""
