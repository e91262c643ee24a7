"""The data sets: one reader a source, all of the shape `base.Source`."""
