"""Boundaries are what their definition says, however the frames come, and nobody looks further ahead than is stated."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keystep
from keystep.boundaries import Segmenter, SegmenterConfig, fitting
from keystep.boundaries.agreement import agreement
from keystep.boundaries.sources import Features, Latents, Source, Surprise, all_rows
from keystep.data.discovered import write_boundaries
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.errors import InputError

MakeModel = Callable[..., keystep.PJEPA]
RATE = Fraction(2)
CAUSAL = {"kind": "causal"}


def steps_of_a_video(frames: int, seed: int = 0, noise: float = 0.3) -> np.ndarray:
    """(frames, 5): a look that changes every 5 to 20 frames, and noise."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 20, frames)
    looks = np.repeat(rng.normal(size=(frames, 5)), lengths, axis=0)[:frames]
    return (looks + noise * rng.normal(size=looks.shape)).astype(np.float32)


def segmenter(source: Source | None = None, name: str = "features", **changes: object) -> Segmenter:
    """Windows of 3 frames, boundaries 4 frames apart, segments of 20 frames at most."""
    config = SegmenterConfig(**{"source": name, "window": 1.5, "shortest": 2, "longest": 10, **changes})  # type: ignore[arg-type]
    scale = np.linspace(0.5, 1.5, 4 if name == "surprise" else source.model.config.dim if name == "latents" else 5)
    threshold = {"features": 0.5, "latents": 0.3, "surprise": 0.02}[name]
    return Segmenter(config, RATE, source or Features(5), scale, threshold)


@pytest.fixture(scope="module")
def segmenters(make_model: MakeModel) -> dict[str, Segmenter]:
    model = make_model(CAUSAL, output_dim=7)
    return {
        "features": segmenter(),
        "endless": segmenter(longest=None),
        "latents": segmenter(Latents(model), "latents"),
        "surprise": segmenter(Surprise(model, span=4, context=9, clusters=7), "surprise"),
    }


def by_definition(frames: np.ndarray, found: Segmenter) -> list[int]:
    """First frames of segments, from plain loops over the whole video."""
    window, reach, longest = 3, 3, found.longest
    scores = {}
    for t in range(window, len(frames) - window + 1):
        change = (frames[t : t + window].mean(0) - frames[t - window : t].mean(0)) / found.scale
        scores[t] = float(np.sqrt((change**2).mean()))
    starts = [0]
    for t, score in scores.items():
        before = [scores[other] for other in scores if t - reach <= other < t]
        behind = [scores[other] for other in scores if t < other <= t + reach]
        peak = score >= found.threshold and all(score > x for x in before) and all(score >= x for x in behind)
        if (peak and t - starts[-1] > reach) or (longest is not None and t - starts[-1] >= longest):
            starts.append(t)
    while longest is not None and len(frames) - starts[-1] > longest:
        starts.append(starts[-1] + longest)
    return starts[1:]


def run(found: Segmenter, frames: np.ndarray, sizes: list[int]) -> list[int]:
    state, starts, place = found.begin(), [], 0
    for size in [*sizes, len(frames)]:
        new, state = found.step(frames[place : place + size], state)
        starts += new
        place += size
    return starts + found.finish(state)


@pytest.mark.parametrize("longest", [10, None])
@pytest.mark.parametrize("seed", range(5))
def test_boundaries_are_the_high_peaks_of_the_change_at_least_so_far_apart(seed: int, longest: float | None) -> None:
    found, frames = segmenter(longest=longest), steps_of_a_video(150, seed)
    starts = by_definition(frames.astype(np.float64), found)
    assert len(starts) > 3 and [0, *np.cumsum(found.segment(frames))] == [0, *starts, 150]


def test_changes_of_look_are_found_where_they_are() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(8, 40, 40)
    video = np.repeat(rng.normal(size=(40, 5)), true, axis=0) + 0.2 * rng.normal(size=(true.sum(), 5))
    found = replace(segmenter(longest=None), scale=np.ones(5), threshold=0.4)
    assert agreement(found.segment(video.astype(np.float32)), list(true), 1).f1 > 95


@pytest.mark.parametrize("name", ["features", "endless", "latents", "surprise"])
@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(0, 30), max_size=12), seed=st.integers(0, 3), frames=st.integers(0, 120))
def test_frame_by_frame_gives_the_boundaries_of_the_whole_video(
    segmenters: dict[str, Segmenter], name: str, sizes: list[int], seed: int, frames: int
) -> None:
    found, video = segmenters[name], steps_of_a_video(frames, seed)
    lengths = found.segment(video)
    assert sum(lengths) == frames and list(np.cumsum(lengths)[:-1]) == run(found, video, sizes)


@pytest.mark.parametrize("name", ["features", "latents", "surprise"])
@settings(max_examples=15, deadline=None)
@given(cut=st.integers(1, 100), seed=st.integers(0, 3))
def test_what_is_behind_the_look_ahead_never_moves_a_boundary(
    segmenters: dict[str, Segmenter], name: str, cut: int, seed: int
) -> None:
    found, past, future = segmenters[name], steps_of_a_video(100, seed), steps_of_a_video(100, seed + 9, noise=2)
    known, _ = found.step(past[:cut], found.begin())
    other = np.cumsum(found.segment(np.concatenate([past[:cut], future[cut:]])))[:-1]
    certain = [start for start in other if start + found.look_ahead < cut]
    assert known[: len(certain)] == certain, "what can be known is known, and stands whatever comes"
    assert list(other[: len(known)]) == known


def test_lengths_keep_their_bounds(segmenters: dict[str, Segmenter]) -> None:
    for name, found in segmenters.items():
        lengths = found.segment(steps_of_a_video(400, 1))
        assert min(lengths[:-1]) >= 4, name
        assert max(lengths) <= 20 or name == "endless"


def test_surprise_depends_on_nothing_later_and_is_lower_where_the_model_sees_the_frame(make_model: MakeModel) -> None:
    source = Surprise(make_model(CAUSAL, output_dim=7), span=4, context=9, clusters=7)
    video = steps_of_a_video(22)
    rows, state = source.step(video, source.begin())
    assert len(rows) == 20 and len(source.finish(state)) == 2 and (rows >= 0).all() and (rows <= np.log(2)).all()
    changed = video.copy()
    changed[10:] += 3
    np.testing.assert_allclose(source.step(changed, source.begin())[0][:10], rows[:10], atol=1e-6)
    assert np.abs(source.step(changed, source.begin())[0][10:] - rows[10:]).max() > 1e-3


def test_surprise_compares_the_clusters_of_each_offset_and_averages(make_model: MakeModel) -> None:
    """A model of three offsets against three that have one of them each."""
    together = make_model(CAUSAL, output_dim=12)
    video, alone = steps_of_a_video(22), []
    for offset in range(3):
        single = make_model(CAUSAL, output_dim=4)
        rows = slice(4 * offset, 4 * offset + 4)
        single.load_state_dict(
            {
                name: tensor[rows] if "predictor.output" in name or "visible_output" in name else tensor
                for name, tensor in together.state_dict().items()
            }
        )
        alone.append(Surprise(single, span=4, context=9, clusters=4))
    found = all_rows(Surprise(together, span=4, context=9, clusters=4), video)
    np.testing.assert_allclose(found, np.mean([all_rows(source, video) for source in alone], axis=0), atol=1e-6)
    with pytest.raises(InputError, match="12 outputs are no logits of 5 clusters"):
        Surprise(together, span=4, context=9, clusters=5)


def test_models_that_see_the_future_find_no_boundaries(make_model: MakeModel) -> None:
    for model in (make_model({"kind": "bidirectional"}), make_model({"kind": "block_causal", "block": 4})):
        with pytest.raises(InputError, match="boundaries cannot be found with it"):
            Latents(model)
    ahead = make_model(CAUSAL, predictor_attention={"kind": "bidirectional"})
    with pytest.raises(InputError, match="surprise needs a causal one"):
        Surprise(ahead, span=4, context=9)


@pytest.fixture
def folder(tmp_path: Path) -> FeatureFolder:
    (tmp_path / "features").mkdir()
    for index in range(4):
        np.save(tmp_path / "features" / f"v{index}.npy", steps_of_a_video(200 + index, index).T)
    return open_dataset(tmp_path, source_rate=RATE)


def test_the_threshold_is_a_quantile_of_the_peaks_or_leaves_a_wished_rate(folder: FeatureFolder) -> None:
    names = list(folder.videos)

    def boundaries(**changes: object) -> int:
        config = SegmenterConfig(window=1.5, shortest=2, longest=None, **changes)  # type: ignore[arg-type]
        found = fitting.fit(folder, names, config)
        return sum(len(found.segment(folder.features(name))) - 1 for name in names)

    peaks = boundaries(quantile=0)
    assert abs(boundaries(quantile=0.75) - peaks / 4) <= 1
    minutes = sum(folder.length(name) for name in names) / RATE / 60
    assert boundaries(per_minute=6) == round(6 * float(minutes))


@pytest.mark.parametrize("choice", [{"quantile": 0.5}, {"quantile": 0.8}, {"per_minute": 4}], ids=str)
def test_a_fitted_segmenter_of_latents_finds_live_what_it_finds_offline(
    folder: FeatureFolder, make_model: MakeModel, choice: dict
) -> None:
    """Float noise differs with the chunks; were the threshold some peak's height, that peak would come and go."""
    names = list(folder.videos)
    config = SegmenterConfig(source="latents", window=1.5, shortest=2, longest=None, **choice)
    found = fitting.fit(folder, names, config, make_model(CAUSAL))
    rng = np.random.default_rng(0)
    for name in names:
        video = folder.features(name)
        offline = list(np.cumsum(found.segment(video))[:-1])
        chunkings = [[size] * 200 for size in (1, 2, 3, 5, 7, 11, 16, 31, 64)]
        chunkings += [rng.integers(0, 20, 40).tolist() for _ in range(10)]
        for sizes in chunkings:
            assert run(found, video, sizes) == offline


@given(
    heights=st.lists(
        st.floats(-1, 9, allow_subnormal=False).map(lambda height: round(height, 3)), min_size=1, max_size=9
    ),
    quantile=st.floats(0, 0.99),
)
def test_the_threshold_is_no_peaks_height_and_divides_the_peaks_as_the_quantile_does(
    heights: list[float], quantile: float
) -> None:
    peaks = np.array(heights)
    threshold = fitting.choose_threshold(peaks, 1.0, SegmenterConfig(quantile=quantile))
    assert threshold not in heights or threshold == 0
    assert (peaks >= threshold).tolist() == (peaks >= np.quantile(peaks, quantile, method="higher")).tolist()
    wanted = fitting.choose_threshold(peaks, 1.0, SegmenterConfig(per_minute=3))
    assert (peaks >= wanted).tolist() == (peaks >= np.sort(peaks)[::-1][:3][-1]).tolist()


@pytest.mark.parametrize("name", ["features", "latents", "surprise"])
def test_a_segmenter_comes_back_from_its_file(
    folder: FeatureFolder, make_model: MakeModel, tmp_path: Path, name: str
) -> None:
    model = None if name == "features" else make_model(CAUSAL, output_dim=7)
    config = SegmenterConfig(source=name, span=2, context=5)  # type: ignore[arg-type]
    found = fitting.fit(folder, ["v0", "v1"], config, model, clusters=7)
    write_boundaries(tmp_path / "out", {}, fitting.to_record(found) | {"fitted_on": ["v0", "v1"]})
    again = fitting.load(str(tmp_path / "out" / "segmenter.json"), model)
    video = folder.features("v3")
    assert again.segment(video) == found.segment(video) and again.look_ahead == found.look_ahead
    if model is not None:
        with pytest.raises(InputError, match="needs a model"):
            fitting.load(tmp_path / "out" / "segmenter.json")


@pytest.mark.parametrize(
    ("name", "changes", "line"),
    [
        ("features", {"scale": [1.0] * 4}, "scale: 4 numbers instead of 5"),
        ("features", {"width": None}, "features without a width"),
        ("features", {"settings": {"windo": 3}}, r"settings: unknown setting windo \(did you mean window\?\)"),
        ("latents", {"scale": [1.0] * 5}, "scale: 5 numbers instead of 16"),
        ("surprise", {"scale": [1.0] * 5}, "scale: 5 numbers instead of 4"),
        ("surprise", {"clusters": "drop"}, "surprise without clusters"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(
    segmenters: dict[str, Segmenter], tmp_path: Path, name: str, changes: dict, line: str
) -> None:
    found = segmenters[name]
    record = fitting.to_record(found) | {"fitted_on": ["v0"]} | changes
    record = {key: value for key, value in record.items() if value != "drop"}
    write_boundaries(tmp_path / "out", {}, record)
    model = None if name == "features" else found.source.model  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=rf"out/segmenter\.json: damaged: {line}; run 'keystep segment' again"):
        fitting.load(tmp_path / "out" / "segmenter.json", model)


def test_settings_and_videos_that_leave_nothing_to_choose_are_refused(folder: FeatureFolder) -> None:
    with pytest.raises(ValueError, match="leaves no room to choose"):
        SegmenterConfig(longest=3)
    with pytest.raises(InputError, match="make window smaller"):
        fitting.fit(folder, ["v0"], SegmenterConfig(window=100, longest=None))
    with pytest.raises(InputError, match=r"shape \(5,\)"):
        segmenter().step(np.zeros(5, np.float32), segmenter().begin())
    with pytest.raises(InputError, match="frames are 3 wide; the segmenter was fitted on 5"):
        segmenter().step(np.zeros((2, 3), np.float32), segmenter().begin())
    assert replace(segmenter(), threshold=9.0).segment(steps_of_a_video(50)) == [20, 20, 10], "cut where it is too long"
