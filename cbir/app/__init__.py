"""The page: Streamlit over `cbir.search.searcher.Searcher`.  `cbir app` starts it; it needs the extra, `pip install .[app]`."""
