"""The encoders: one protocol (`base`), one preprocessing, one file for each family."""
