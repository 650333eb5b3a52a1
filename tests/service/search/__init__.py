"""Tests of `service/search`."""
