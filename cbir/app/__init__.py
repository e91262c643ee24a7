"""The page: a Streamlit app over `cbir.Searcher`.  `cbir app` starts it; it needs `pip install .[app]`."""
