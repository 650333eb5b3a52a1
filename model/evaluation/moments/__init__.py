"""Predicted moments against annotated ones: TVR, DiDeMo, QVHighlights."""
