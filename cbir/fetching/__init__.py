"""Fetched files: addresses, hashes, the user's cache, and read-only views of folders and archives."""
