"""Tests of `model/families/lgdn`."""
