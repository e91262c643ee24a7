"""What makes the default run mean something offline: the drawn data set and its small encoders."""
