"""Damages small media files in thousands of ways and indexes them: `python -m tests.fuzz --help`."""
