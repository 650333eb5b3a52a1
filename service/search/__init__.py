"""Search without HTTP."""
