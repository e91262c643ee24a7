"""The files that stages exchange: their schemas, with one read_ and one write_ function each.

`tables` reads and writes Parquet with a checked schema; `paths` knows where each file is, `names` the names of tasks and
encoders.
"""
