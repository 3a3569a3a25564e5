"""What each format holds, read by something other than keystep where there is something."""

import json
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import read_number, write_clip

from keystep.data.annotation import IGNORED
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.evals.palette import Palette, rgb
from keystep.exchange import export_annotations, import_annotations

Write = Callable[..., Path]


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> FeatureFolder:
    """Two videos at 4 slots a second: 1 s cut, 0.5 s nothing, 0.5 s stir; and 1 s pour."""
    labels = {"a": [0] * 4 + [IGNORED] * 2 + [1] * 2, "b": [2] * 4}
    return open_dataset(write(tmp_path / "data", Timeline(rate=Fraction(4)), {"a": 8, "b": 4}, labels))


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """The two as videos of 10 frames a second."""
    pytest.importorskip("av", reason="PyAV is an extra")
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "a.mp4", frames=20, height=90, width=121, rate=10, audio=2, pixel_format="yuv444p")
    write_clip(tmp_path / "videos" / "b.mkv", frames=10, rate=10)
    return tmp_path / "videos"


def test_fiftyone_has_frames_from_one_or_seconds(folder: FeatureFolder, tmp_path: Path) -> None:
    export_annotations(folder, "fiftyone", tmp_path / "seconds")
    found = json.loads((tmp_path / "seconds" / "labels.json").read_text())
    assert found["classes"] == ["cut", "stir", "pour"]
    assert found["labels"]["a"] == [{"label": 0, "timestamps": [0.0, 1.0]}, {"label": 1, "timestamps": [1.5, 2.0]}]
    export_annotations(folder, "fiftyone", tmp_path / "frames", frame_rate=10)
    found = json.loads((tmp_path / "frames" / "labels.json").read_text())
    assert found["labels"]["a"] == [{"label": 0, "support": [1, 10]}, {"label": 1, "support": [16, 20]}]


def test_lerobot_has_a_subtask_for_every_frame(folder: FeatureFolder, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    done = export_annotations(folder, "lerobot", tmp_path / "out", frame_rate=10)
    subtasks, data, episodes = (parquet.read_table(path) for path in done.paths)
    assert subtasks.column("subtask").to_pylist() == ["cut", "stir", "pour", "(unlabelled)"]
    assert json.loads(subtasks.schema.metadata[b"pandas"])["index_columns"] == ["subtask"]
    assert data.column("subtask_index").to_pylist() == [0] * 10 + [3] * 5 + [1] * 5 + [2] * 10
    assert data.column("frame_index").to_pylist() == [*range(20), *range(10)]
    assert np.allclose(data.column("timestamp").to_pylist()[:3], [0, 0.1, 0.2])
    assert episodes.column("video").to_pylist() == ["a", "b"] and episodes.column("length").to_pylist() == [20, 10]


def test_frames_are_those_of_the_videos_where_these_are_given(
    folder: FeatureFolder, videos: Path, tmp_path: Path
) -> None:
    done = export_annotations(folder, "cvat", tmp_path / "out", videos=videos)
    text = done.paths[0].read_text()
    assert '<box frame="15"' in text and 'xbr="121.00" ybr="90.00"' in text and "<source>a.mp4</source>" in text
    with pytest.raises(InputError, match="cvat counts frames of the video, and nothing says how many a has a second"):
        export_annotations(folder, "cvat", tmp_path / "other")


def test_no_path_of_this_machine_and_no_author_goes_out(folder: FeatureFolder, videos: Path, tmp_path: Path) -> None:
    for kind in ("elan", "cvat", "labelstudio", "fiftyone"):
        done = export_annotations(folder, kind, tmp_path / kind, videos=videos)
        for path in done.paths:
            assert str(tmp_path) not in path.read_text() and 'AUTHOR="pympi"' not in path.read_text()


def test_what_a_killed_export_left_goes_with_the_next(folder: FeatureFolder, tmp_path: Path) -> None:
    (tmp_path / "out" / ".keystep.export" / "meta").mkdir(parents=True)
    export_annotations(folder, "csv", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.csv", "b.csv"]


def test_the_film_shows_every_frame_over_the_colour_of_its_label(
    folder: FeatureFolder, videos: Path, tmp_path: Path
) -> None:
    from keystep.extraction.backbone import Picture
    from keystep.extraction.video import open_video

    done = export_annotations(folder, "mp4", tmp_path / "out", videos=videos)
    film, palette = open_video(done.paths[0]), Palette(folder.classes)
    assert [path.name for path in done.paths] == ["a.mp4", "b.mp4"]
    pictures = [frame.rgb(Picture(height=film.info.height, width=film.info.width)) for frame in film.frames()]
    assert [read_number(picture[:90]) for picture in pictures] == [*range(20)]
    for number, label in ((2, 0), (12, IGNORED), (17, 1)):
        under = pictures[number][94, 110].astype(int)
        assert np.abs(under - rgb(palette.colour(label))).max() < 40, number
    ribbon = pictures[0][-3]
    assert [np.abs(ribbon[column].astype(int) - rgb(palette.colour(0))).max() < 40 for column in (30, 118)] == [1, 0]
    with pytest.raises(InputError, match="mp4 needs the videos themselves; give --videos DIR with a file for a"):
        export_annotations(folder, "mp4", tmp_path / "more")


def test_a_rerun_recording_is_written_or_its_package_is_named(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(InputError, match=r"needs rerun-sdk; install it with: pip install 'keystep\[rerun\]'"):
        export_annotations(folder, "rerun", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    monkeypatch.undo()
    pytest.importorskip("rerun", reason="rerun-sdk is an extra of its own")
    done = export_annotations(folder, "rerun", tmp_path / "out")
    assert all(path.read_bytes()[:3] == b"RRF" for path in done.paths) and len(done.paths) == 2


@pytest.mark.parametrize(("kind", "package"), [("elan", "pympi-ling"), ("lerobot", "pyarrow")])
def test_a_missing_package_is_named(
    kind: str, package: str, folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, {"elan": "pympi", "lerobot": "pyarrow"}[kind], None)
    with pytest.raises(InputError, match=rf"needs {package}; install it with: pip install 'keystep\[exchange\]'"):
        export_annotations(folder, kind, tmp_path / "out")


def elan(path: Path, tiers: dict[str, list[tuple[int, int, str]]], origin: int | None = None) -> Path:
    """A document as ELAN might have written it."""
    pympi = pytest.importorskip("pympi", reason="pympi-ling is an extra")
    document = pympi.Eaf(author="somebody")
    for name, rows in tiers.items():
        document.add_tier(name)
        for row in rows:
            document.add_annotation(name, *row)
    document.add_linked_file("file:///videos/b.mp4", "./b.mp4", "video/mp4", time_origin=origin)
    document.to_file(str(path))
    return path


def test_of_several_tiers_one_is_read_and_the_others_are_named(folder: FeatureFolder, tmp_path: Path) -> None:
    path = elan(tmp_path / "x.eaf", {"hands": [(0, 500, "cut")], "talk": [(0, 250, "hm")], "empty": []})
    with pytest.raises(InputError, match=r"annotations on 2 tiers; give --track, one of hands \(1\), talk \(1\)"):
        import_annotations(folder, [path])
    with pytest.raises(InputError, match="no annotations on a tier empty"):
        import_annotations(folder, [path], track="empty")
    done = import_annotations(folder, [path], track="hands", overwrite=True)
    assert done.labelled == {"b": 2} and "b: only the tier hands was read, not talk" in done.notes


def test_elan_times_count_from_where_the_video_was_cut(folder: FeatureFolder, tmp_path: Path) -> None:
    path = elan(tmp_path / "b.eaf", {"steps": [(0, 500, "cut")]}, origin=500)
    done = import_annotations(folder, [path], overwrite=True)
    assert (folder.root / "groundTruth" / "b.txt").read_text() == "(unlabelled)\n" * 2 + "cut\n" * 2
    assert any("0.5 s later than in ELAN" in note for note in done.notes)
    path.write_text(path.read_text().replace("<HEADER", '<HEADER TIME_UNITS="NTSC-frames"'))
    with pytest.raises(InputError, match="counts 'NTSC-frames'; only milliseconds are read"):
        import_annotations(folder, [path], overwrite=True)
