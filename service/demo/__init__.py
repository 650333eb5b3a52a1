"""The demo: videos that packages install, indexed and served."""
