"""``keystep encode``: latents of a whole folder, for our own evaluations or for other people's code."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
from rich.console import Console

from keystep.cli.data import list_problems, open_data, show_warnings
from keystep.cli.progress import counting
from keystep.data.store import FeatureStore, Layout, labels_record
from keystep.errors import InputError
from keystep.evals.encoding import encode_videos
from keystep.loading import check_features, load

_MADE = "made with the true segment boundaries"


def encode_folder(
    model_path: str,
    data: Path,
    out: Path,
    layout: str,
    live: bool,
    source_rate: str | None,
    rate: str | None,
    on_error: str,
    half: bool,
    console: Console,
) -> None:
    """Encode what is not there yet; the folder is complete and consistent after every video."""
    if layout not in get_args(Layout):
        raise InputError(f"--layout {layout!r} is none of {', '.join(get_args(Layout))}")
    found = load(model_path)
    pattern = None
    if live:
        pattern = found.config.live_attention
        if pattern is None:
            raise InputError(f"{found.origin.source}: this model has no live_attention; leave out --live")
    folder = open_data(data, source_rate, rate, on_error)
    show_warnings(check_features(found, folder), folder, console)
    names = [name for name in folder.videos if not (out / "features" / f"{name}.npy").exists()]
    upsample = folder.pool if layout == "mstcn" else 1
    oracle = "; ".join(filter(None, (folder.oracle, _MADE if found.config.oracle else "")))
    store = FeatureStore(
        out,
        folder.source if layout == "mstcn" else folder.timeline,
        layout,  # type: ignore[arg-type]  # checked above
        {
            "model": found.origin.source,
            "weights": found.fingerprint,
            "features": folder.fingerprint(),
            "attention": str(pattern or found.config.attention),
            "oracle": oracle,
            **labels_record(folder),
            "pooled_by": folder.pool,
            "type": "float16" if half else "float32",
        },
    ).create()
    if folder.pool == upsample:
        store.copy_annotation(folder)
    else:
        console.print("note: labels are not copied, they are at another rate than these latents", soft_wrap=True)
    with counting(console, "encoding", len(names)) as tick:
        for name, latents in encode_videos(found, folder, names, pattern, tick):
            held = np.repeat(latents, upsample, axis=0)[: folder.video(name).frames] if upsample > 1 else latents
            times = folder.times(name) if folder.pool != upsample and folder.has_times(name) else None
            store.add(name, held.astype(np.float16 if half else np.float32), times=times)
    store.finish()
    list_problems(folder, console)
    done = len(folder.videos) - len(folder.problems.skipped)
    marked = f"  ORACLE: {oracle}" if oracle else ""
    console.print(f"{out}: {done} videos, {found.config.dim} wide, layout {layout}{marked}", soft_wrap=True)
