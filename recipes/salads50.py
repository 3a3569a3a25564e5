"""50Salads: I3D features, averaged to 5 Hz, split 1 of 5 (choose others with --split).

    python recipes/salads50.py --root DIR --out runs/salads50 [--seeds 3] [--rows pjepa] [--steps 100]

DIR is the unpacked data.zip of MS-TCN, or its folder 50salads/, which is read as it is.
"""

from keystep.cli.recipe import Recipe, Row, main

RECIPE = Recipe(
    data_set="50salads",
    copy=False,
    rate="5",
    rows={"pjepa": Row("small"), "reconstruction": Row("small", ("target.offsets=[0]",))},
    # Published scores count both as steps; --eval-set 'background=[action_start, action_end]' leaves them out.
    evaluation=("protocol=pooled",),
)

if __name__ == "__main__":
    main(RECIPE)
