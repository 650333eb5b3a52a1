"""Evaluation: ranking in both directions over photos, films and videos, and the paper's tables."""
