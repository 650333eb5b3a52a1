"""Tests of `model/data`."""
