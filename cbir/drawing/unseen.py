"""The labels that are held out of the demo encoders' training, to measure how well the encoders generalize.

No training image has such a label and no training text names one; a small muted distractor may have one.
"""

from cbir.drawing.attributes import COLOURS, SHAPES

# One label of each shape, and one or two of each colour: training has all shapes and colours, but not these pairs.
UNSEEN_LABELS = frozenset(f"{COLOURS[3 * number % len(COLOURS)]} {shape}" for number, shape in enumerate(SHAPES))
