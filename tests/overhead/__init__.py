"""Compares the speed of this code with that of an earlier commit: `python -m tests.overhead --help`."""
