"""GTEA: I3D features, averaged to 5 Hz, split 1 of 4 (choose others with --split).

    python recipes/gtea.py --root DIR --out runs/gtea [--seeds 3] [--rows pjepa] [--steps 100]

DIR is the unpacked data.zip of MS-TCN, or its folder gtea/, which is read as it is.
"""

from keystep.cli.recipe import Recipe, Row, main

RECIPE = Recipe(
    data_set="gtea",
    copy=False,
    rate="5",
    rows={"pjepa": Row("tiny"), "reconstruction": Row("tiny", ("target.offsets=[0]",))},
    evaluation=("protocol=pooled", "background=[background]"),  # published edit and F1 leave it out
)

if __name__ == "__main__":
    main(RECIPE)
