"""A library on disk: its tables, snapshots, and the index of its vectors."""

import os

# Lance reads it as it is imported, and would warn on the terminal of each list of an index that stays empty.
os.environ.setdefault("LANCE_LOG", "error")
