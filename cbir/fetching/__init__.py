"""Bring files here: addresses, hashes, the user's cache, read-only views of folders and archives."""
