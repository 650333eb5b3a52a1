"""The demo: indexes and serves videos that Python packages install."""
