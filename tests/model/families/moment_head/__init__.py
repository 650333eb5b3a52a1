"""Tests of `model/families/moment_head`."""
