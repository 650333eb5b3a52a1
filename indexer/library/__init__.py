"""A library on disk: its tables, snapshots, and the index of its vectors."""
