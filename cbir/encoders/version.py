"""The version of what turns an image or a text into a vector."""

# Part of every key of the vector cache.  Raise it when a change of cbir/encoders changes the vectors of the same weights
# under the same settings and library versions: decoding, resizing, cropping, normalising, tokenizing, layers, pooling.
# The golden vectors (tests/encoders/test_golden.py) fail after such a change; run `python -m tests.encoders.golden` then.
# Comments, names, refactorings and speed need no new version.
VECTORS_VERSION = 1
