"""The search service: search, HTTP interface, web page and the `reelfind` command."""
