"""The embedded data set: small labelled drawings, made by code from a seed."""
