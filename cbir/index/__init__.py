"""FAISS indexes and exact search: build, store, search, time."""
