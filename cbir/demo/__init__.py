"""The demo encoders: their training, their weights, and the weights' card."""
