"""The files that stages exchange: their schemas, with one read_ and one write_ function each.

`tables` reads and writes Parquet with a checked schema; `paths` has the path of each file, `names` the names of tasks and
encoders.
"""
