"""The embedded data set: small labelled drawings that code makes from a seed."""
