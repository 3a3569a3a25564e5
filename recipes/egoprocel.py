"""EgoProceL, 115 key-steps and background: I3D features in FACT's layout, thinned to the paper's 4 Hz.

    python recipes/egoprocel.py --root DIR --out runs/egoprocel [--seeds 3] [--rows pjepa] [--suite paper]

DIR holds features/, groundTruth/, mapping.txt, split1.train and split1.test (docs/datasets.md). The paper's table is
the streaming one: read the causal rows. "One answer for each segment" knows the boundaries and is printed as ORACLE.
"""

from keystep.cli.recipe import Recipe, Row, main

RECIPE = Recipe(
    data_set="egoprocel",
    options=("layout=fact", "rate=4"),
    rows={
        "pjepa": Row("small"),
        "reconstruction": Row("small", ("target.offsets=[0]",)),
        "paper": Row("paper", ("train.epochs=1000", "train.drop_at=0.499", "masking.ratio=0.8")),
    },
    evaluation=("protocol=official", "background=[background]"),  # foreground accuracy stands beside
    suite=("heads=[linear, attentive, context]", "by_segments=true"),
)

if __name__ == "__main__":
    main(RECIPE)
