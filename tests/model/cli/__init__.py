"""Tests of `model/cli`."""
