"""The rows of models: latents alone, with the best moving average, and with the best control."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from threading import Lock

import torch

from keystep.config import ModelConfig
from keystep.config.attention import AttentionPattern
from keystep.encoding import encode_videos
from keystep.evals.controls import Control, Position
from keystep.evals.gate import SMOOTHING
from keystep.evals.judge import Banded
from keystep.evals.modes import attention_patterns, mark_oracle, pattern_delay
from keystep.evals.protocol import Entrant
from keystep.evals.representation import Computed, Representation, stored
from keystep.evals.rows import Beside, Family, Mode
from keystep.evals.simple_rows import Chosen
from keystep.evals.study import Study, concatenate, with_bands
from keystep.nn.bands import NAMES
from keystep.pjepa import PJEPA

CONTROL, HELD = "best control", "held bands"
CONTROL_BAND = "control"
"""Name of the band that a control adds to the latents."""
RNG_LOCK = Lock()
"""Torch's random generator is global: without a lock, evaluations in two threads would share its state."""


class ModelRows:
    """Evaluates models and their untrained counterparts. Models of the same architecture share one counterpart.

    Args:
        study: receives the rows.
        chosen: mode -> the controls selected on the validation videos.
    """

    def __init__(self, study: Study, chosen: dict[Mode, Chosen]) -> None:
        self.study, self.chosen = study, chosen
        self.architectures: list[ModelConfig] = []

    def judge(self, entrant: Entrant, *, twin_too: bool = True, held_too: bool = True) -> None:
        """Evaluate a model in every supported and requested mode.

        Args:
            entrant: the model.
            twin_too: also its untrained counterpart.
            held_too: also the fixed bands of its latents alone.
        """
        architecture = encoder_part(entrant.model.config)
        if architecture not in self.architectures:
            self.architectures.append(architecture)
        number = self.architectures.index(architecture)
        twin = "untrained encoder" + (f" {number + 1}" if number else "")
        name = entrant.name
        if entrant.model.config.oracle:
            name, twin = mark_oracle(name), mark_oracle(twin)
        family: Family = "reconstruction" if entrant.reconstruction else "learned"
        for mode, pattern in attention_patterns(entrant.model).items():
            if mode not in self.chosen:
                continue
            self._model(name, family, mode, entrant.model, pattern, entrant.seed)
            if held_too and entrant.model.config.held and not self.study.quick:
                self._held(HELD + (f" {number + 1}" if number else ""), mode, entrant.model, pattern)
            if not twin_too:
                continue
            row = self.study.evaluation.find(self.study.marked(twin), mode)
            if row is None or (not self.study.quick and entrant.seed not in {run.seed for run in row.runs}):
                self._model(twin, "untrained", mode, _untrained(entrant), pattern, entrant.seed)

    def _held(self, name: str, mode: Mode, model: PJEPA, pattern: AttentionPattern) -> None:
        """Add the row of the fixed bands of a model's latents, which are not learned."""
        study, wait = self.study, pattern_delay(pattern, self.study.rate)
        bands = {band: width for band, width in model.bands(pattern).items() if band in NAMES}
        width = sum(bands.values())
        if study.evaluation.find(study.marked(name), mode) is not None:
            return  # fixed bands do not depend on the seed

        def held() -> Banded:
            latents = encode_videos(model, study.judge.folder, study.judge.videos, pattern)
            return Banded(stored(((video, x[:, :width]) for video, x in latents), study.judge.kept.folder), bands)

        study.add(
            name,
            "control",
            mode,
            held,
            key=f"held {mode}: {model.fingerprint} {pattern!r}",
            position="elapsed" if mode == "causal" else "progress",
            delay=None if wait is None else wait + study.slot_delay,
            detail="the fixed bands of the latents, without learned ones",
        )

    def _model(self, name: str, family: Family, mode: Mode, model: PJEPA, pattern: AttentionPattern, seed: int) -> None:
        """Add the rows of a model: latents alone and, if learned, with smoothing and with the best control."""
        study = self.study
        name = study.marked(name)
        wait = pattern_delay(pattern, study.rate)
        delay = None if wait is None else wait + study.slot_delay
        settings = model.config.model_dump_json()  # number of heads, rotations etc. are not visible in the weights
        key = f"latents {mode}: {model.fingerprint} {settings} {pattern!r}"
        position: Position = "elapsed" if mode == "causal" else "progress"

        @cache
        def latents() -> Representation:
            folder, videos = study.judge.folder, study.judge.videos
            prefix = f"encoding with {name} ({mode}): "
            encoded = encode_videos(model, folder, videos, pattern, lambda video: study.note(prefix + video))
            return stored(encoded, study.judge.kept.folder)

        bands = model.bands(pattern)
        add = partial(study.add, family=family, mode=mode, seed=seed, position=position)
        row = add(name, representation=lambda: with_bands(latents(), bands), key=key, delay=delay, detail=str(pattern))
        chosen = row.runs[-1].probe.strengths
        beside = count_concatenated(study, family)
        pairs: list[tuple[Beside, str, Control]] = [
            ("smoothing", SMOOTHING, self.chosen[mode].smoothing),
            ("control", CONTROL, self.chosen[mode].best),
        ]
        for what, other, control in pairs[:beside]:
            made = study.lazy_control(control)
            add(
                f"{name} ++ {other}",
                representation=lambda made=made: concatenate(  # type: ignore[misc]
                    with_bands(latents(), bands), made(), CONTROL_BAND, chosen
                ),
                key=f"{key}, strengths {dict(chosen)} ++ {study.key(control, mode)}",
                delay=delay if mode == "causal" else None,
                detail=f"with {control.name}",
                beside=what,
            )
        if family == "learned" and f"{name}, {mode}" not in study.evaluation.geometry:
            test = Computed(study.judge.split.test, latents().__getitem__, most=0)
            study.measure(f"{name}, {mode}", test)
            study.evaluation.shown.setdefault(f"latents of {name}, {mode}", test)


def count_concatenated(study: Study, family: Family) -> int:
    """Number of additional rows of a model: with smoothing and with the best control, for learned models only."""
    return 2 if family == "learned" and not study.quick else 0


def count_models(study: Study, entrants: Sequence[Entrant], modes: Sequence[Mode]) -> int:
    """Number of probes that `ModelRows` reports for these models."""
    total, twins, held = 0, set[tuple[ModelConfig, Mode, int]](), set[tuple[ModelConfig, Mode]]()
    for entrant in entrants:
        family: Family = "reconstruction" if entrant.reconstruction else "learned"
        for mode in modes:
            if mode in attention_patterns(entrant.model):
                total += 1 + count_concatenated(study, family)
                architecture = encoder_part(entrant.model.config)
                twins.add((architecture, mode, 0 if study.quick else entrant.seed))
                if entrant.model.config.held and not study.quick:
                    held.add((architecture, mode))
    return total + len(twins) + len(held)


def encoder_part(config: ModelConfig) -> ModelConfig:
    """The config with all fields that do not affect the encoder set to their defaults."""
    plain = ModelConfig(dim=config.dim, heads=config.heads)
    names = ("output_dim", "predictor_depth", "predictor_heads", "predictor_attention", "visible_predictions")
    return config.model_copy(update={name: getattr(plain, name) for name in names})


def _untrained(entrant: Entrant) -> PJEPA:
    """The same architecture and input statistics with fresh weights."""
    with RNG_LOCK, torch.random.fork_rng(devices=[]):
        torch.manual_seed(entrant.seed)
        fresh = PJEPA(entrant.model.config)
    fresh.load_state_dict({**fresh.state_dict(), **dict(entrant.model.named_buffers())})
    return fresh.to(entrant.model.mask_token.device).eval()
