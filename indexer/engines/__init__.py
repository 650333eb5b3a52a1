"""Engines that decode and encode the files of an indexing run."""
