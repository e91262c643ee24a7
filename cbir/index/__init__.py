"""FAISS indexes and exact search: build, store, search, measure latency."""
