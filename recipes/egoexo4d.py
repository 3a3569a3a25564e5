"""EgoExo4D keystep recognition: trimmed clips of 278 key-steps, with what came before in the take and without.

    python recipes/egoexo4d.py --root DIR --out runs/egoexo4d [--seeds 3] [--rows pjepa] --suite paper

DIR is what the official downloader writes: annotations/, keystep_benchmark/, features/omnivore_video/
(docs/datasets.md). The probes' table scores frames; top-1 of clips, the benchmark's number, is in the suite's report.
"""

from keystep.cli.recipe import Recipe, Row, main

RECIPE = Recipe(
    data_set="egoexo4d",
    rows={"pjepa": Row("small"), "reconstruction": Row("small", ("target.offsets=[0]",))},
    evaluation=("protocol=pooled",),
    suite=("heads=[linear, attentive]", "modes=[causal]"),
)

if __name__ == "__main__":
    main(RECIPE)
