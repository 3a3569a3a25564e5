"""Read and write feature folders: features, labels, groups and splits."""
