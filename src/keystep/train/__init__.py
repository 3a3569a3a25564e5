"""Pretraining: the step, the run, and all that a resume needs."""
