"""Tests of `service/rights`."""
