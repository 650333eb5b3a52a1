"""Tests of `service/page`."""
