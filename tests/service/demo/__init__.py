"""Tests of `service/demo`."""
