"""The network: attention, positions, blocks, encoder and predictor."""
