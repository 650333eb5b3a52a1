"""Tests of `model/runtime/video`."""
