"""The shared trainer, its training recipes, checkpoints, the check before a start, and the training command."""
