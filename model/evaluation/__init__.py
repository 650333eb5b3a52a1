"""Evaluation: retrieval in both directions over photos, films and videos, and the paper's Figure 4."""
