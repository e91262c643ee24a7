"""The labels that the demo encoders' training holds out: what they do with these is what they have understood.

No image of the training has such a label and no text of it names one; a small muted distractor may show one.
"""

from cbir.drawing.draw import COLOURS, SHAPES

# One label of each shape, and one or two of each colour: every shape and every colour is a label's, these pairs are not.
UNSEEN_LABELS = frozenset(f"{COLOURS[3 * number % len(COLOURS)]} {shape}" for number, shape in enumerate(SHAPES))
