"""Tests of `model/training`."""
