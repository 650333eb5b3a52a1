"""Training: the loop, checkpoints, progress, and runs of several processes."""
