"""Reelfind's models: PyTorch code that trains and exports, and the runtime that serves without it."""
