"""Breakfast: I3D features, averaged to 5 Hz, split 1 of 4 (choose others with --split).

    python recipes/breakfast.py --root DIR --out runs/breakfast [--seeds 3] [--rows pjepa] [--steps 100]

DIR is the unpacked data.zip of MS-TCN, or its folder breakfast/, which is read as it is.
"""

from keystep.cli.recipe import Recipe, Row, main

RECIPE = Recipe(
    data_set="breakfast",
    copy=False,
    rate="5",
    rows={"pjepa": Row("small"), "reconstruction": Row("small", ("target.offsets=[0]",))},
    # Published scores count SIL as a step; --eval-set 'background=[SIL]' leaves it out.
    evaluation=("protocol=pooled",),
)

if __name__ == "__main__":
    main(RECIPE)
