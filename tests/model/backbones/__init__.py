"""Tests of `model/backbones`."""
