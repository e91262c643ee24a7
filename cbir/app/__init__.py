"""The page: Streamlit over `cbir.search.Searcher`.  `cbir app` starts it; it needs the extra, `pip install .[app]`."""
