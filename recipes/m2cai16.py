"""M2CAI16-workflow, surgical phases: PL-Stitch features at 1 Hz; split 1 is the one that the archive itself names.

    python recipes/m2cai16.py --root DIR --out runs/m2cai16 [--seeds 3] [--rows pjepa] [--steps 100]

DIR holds m2cai16_pl_stitch_vitb16_1fps.pt.
"""

from keystep.cli.recipe import Recipe, Row, main

RECIPE = Recipe(
    data_set="m2cai16",
    rows={
        "pjepa": Row("small"),
        "reconstruction": Row("small", ("target.offsets=[0]",)),
        "block32": Row("surgical"),
    },
    evaluation=("protocol=pooled",),  # every frame is in a phase: no background
)

if __name__ == "__main__":
    main(RECIPE)
