"""Network modules: attention, positions, blocks, encoder and predictor."""
