"""Cholec80, surgical phases: PL-Stitch features at 1 Hz; split 1 is 32 / 8 / 40 videos, --split 2 is 40 / 40.

    python recipes/cholec80.py --root DIR --out runs/cholec80 [--seeds 3] [--rows pjepa] [--steps 100]

DIR holds cholec80_pl_stitch_vitb16_1fps.pt.
"""

from keystep.cli.recipe import Recipe, Row, main

RECIPE = Recipe(
    data_set="cholec80",
    rows={
        "pjepa": Row("small"),
        "reconstruction": Row("small", ("target.offsets=[0]",)),
        "block32": Row("surgical"),
    },
    evaluation=("protocol=pooled",),  # every frame is in a phase: no background
)

if __name__ == "__main__":
    main(RECIPE)
