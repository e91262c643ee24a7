"""The files that cross a stage's border: their schemas, and one read_ and one write_ for each.

`files` holds atomic writes and checked tables; `images`, `queries`, `vectors` and `runs` hold one border each, apart so
that a stage depends on the borders that it touches only.
"""
