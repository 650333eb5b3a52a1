"""Tests of `indexer/engines`."""
