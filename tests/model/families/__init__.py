"""Tests of `model/families`."""
