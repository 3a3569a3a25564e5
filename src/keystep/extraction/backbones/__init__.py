"""Pretrained backbones, and the sources of their weights."""
