"""One query in, ranked images out: the Searcher, its command line and its contact sheet."""
