"""Tests of `model/runtime/bundle`."""
