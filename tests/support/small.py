"""Settings that make things quick."""

SMALL = (
    *("--set", "model.dim=16", "--set", "model.heads=2", "--set", "model.depth=2", "--set", "model.readout_dim=24"),
    *("--set", "train.steps=4", "--set", "train.crop=32", "--set", "train.batch_size=2"),
)
"""Of a model that trains in a blink."""
QUICK = ("--set", "probe.penalties=[0.01]")
"""Of a probe that does."""
