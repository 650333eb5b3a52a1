"""Tests of `model/runtime/timed_text`."""
