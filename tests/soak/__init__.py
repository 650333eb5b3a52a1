"""Indexes, replaces, removes, searches and kills for half an hour: `python -m tests.soak --help`."""
