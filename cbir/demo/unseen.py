"""The labels that the demo encoders' training never shows: what they do with these is what they have understood."""

from cbir.demo.drawing import COLOURS, SHAPES

# One label of each shape, and one or two of each colour: every shape and every colour is seen, these pairs are not.
UNSEEN_LABELS = frozenset(f"{COLOURS[3 * number % len(COLOURS)]} {shape}" for number, shape in enumerate(SHAPES))
