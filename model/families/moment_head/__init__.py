"""A small head that finds moments from a bundle's frame and text embeddings, trained on spliced films."""
