"""Reading and writing features, labels and splits."""
