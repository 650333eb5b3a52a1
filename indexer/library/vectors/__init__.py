"""Stores of vectors: one protocol, and its implementations."""
