"""Search the gallery for one query: the Searcher, the command `cbir search` and its contact sheet."""
