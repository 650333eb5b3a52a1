"""Tests of `model/experiments`."""
