"""Indexing: scans folders, decodes and encodes videos, and writes and publishes a library."""
