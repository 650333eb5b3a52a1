"""Tests of `model/evaluation`."""
