"""Pretraining: the optimiser step, the training loop, and checkpoints."""
