"""From video to features: decoding by presentation time, pretrained backbones, folders with an exact timeline."""
