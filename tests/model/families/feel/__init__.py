"""Tests of `model/families/feel`."""
