"""Training: the loop, its checkpoints, its progress, and runs of several processes."""
