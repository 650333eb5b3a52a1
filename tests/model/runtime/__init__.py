"""Tests of `model/runtime`."""
