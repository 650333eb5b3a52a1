"""Experiments that repeat the tables of papers."""
