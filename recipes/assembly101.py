"""Assembly101, coarse steps, one view: TSM features, every 8th frame (3.75 Hz), as in the paper's table.

    python recipes/assembly101.py --root DIR --out runs/assembly101 [--seeds 3] [--rows pjepa] [--suite paper]

DIR holds coarse-annotations/ and TSM_features/C10119_rgb/ (docs/datasets.md). ``paper`` is the authors' recipe without
true boundaries, 146M parameters: leave it out on small machines. TSM was trained on this data set's action labels.
"""

from keystep.cli.recipe import Recipe, Row, main

RECIPE = Recipe(
    data_set="assembly101",
    options=("view=C10119", "every=8"),
    rows={
        "pjepa": Row("small"),
        "reconstruction": Row("small", ("target.offsets=[0]",)),
        "paper": Row("paper", ("train.epochs=1000", "train.drop_at=0.499", "data.with_valid=true")),
    },
    evaluation=("protocol=official",),  # the authors' code; there is no background class
)

if __name__ == "__main__":
    main(RECIPE)
