"""Search: from a query to hits, without HTTP."""
