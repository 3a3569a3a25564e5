"""Pretrained networks as backbones, and where their weights come from."""
