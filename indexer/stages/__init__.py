"""Stages of indexing after the pictures: what is heard, what is written in pictures, and where cuts are."""
