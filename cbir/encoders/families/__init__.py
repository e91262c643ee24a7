"""One file for each library that builds encoders."""
