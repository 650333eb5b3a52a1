"""Engines: they decode and encode the files of an indexing run."""
