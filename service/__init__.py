"""The search service: searcher, HTTP, page and the `reelfind` command."""
