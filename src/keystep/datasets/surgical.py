"""Cholec80 and M2CAI16: surgical phases at 1 Hz, from the archives of PL-Stitch features by P-JEPA's authors.

The archives contain labels, class names and splits; `keystep.interop.official` reads them. Cholec80 has two splits: 1
is videos 1-32 / 33-40 / 41-80, 2 is 1-40 / 41-80 without a validation part.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from keystep.config import Config
from keystep.data.annotation import segment_lengths
from keystep.data.problems import Problems
from keystep.datasets.survey import Missing, Survey, check_root, first_existing, require
from keystep.errors import InputError


class SurgicalConfig(Config):
    """Options of the conversion."""

    half: bool = False
    """Store float16 instead of float32."""
    verify: bool = False
    """Verify the checksums of the archive first, which reads all of it."""


class Surgical:
    """Base class of the two data sets, a `keystep.datasets.survey.Preparer`."""

    name: str
    title: str
    source: str
    folders: tuple[str, ...]
    file: str
    published: ClassVar[Mapping[str, int]]

    def __init__(self, config: SurgicalConfig | None = None) -> None:
        self.config = config or SurgicalConfig()

    def survey(self, root: Path) -> Survey:
        """See `Preparer`. Reads the labels of the archive, but not its features."""
        from keystep.interop.official.archives import open_archive

        path = self._path(root)
        if not path.exists():
            return Survey({}, self.published, (Missing(path, self.source),))
        archive = open_archive(path)
        if archive.kind != "surgical":
            raise InputError(f"{path}: a {archive.kind} archive without phase labels; download {self.file} again")
        labels = [archive.video(video).labels for video in archive.order()]
        counts = {
            "videos": len(labels),
            "classes": len(archive.classes),
            "frames": int(archive.lengths.sum()),
            "segments": sum(len(segment_lengths(ids)) for ids in labels if ids is not None),
        }
        return Survey(counts, self.published)

    def write(self, root: Path, out: Path, problems: Problems) -> None:
        """See `Preparer`. Equivalent to ``keystep import official``."""
        from keystep.interop.official.importing import ImportOptions, write_archive

        require(self.survey(root))
        options = ImportOptions(archive=self._path(root), out=out, half=self.config.half, verify=self.config.verify)
        imported = write_archive(options, problems)
        problems.notes.extend(imported.notes)

    def _path(self, root: Path) -> Path:
        check_root(root)
        return first_existing(root, [f"{folder}/{self.file}" for folder in self.folders])


class Cholec80(Surgical):
    """Cholec80: 80 cholecystectomies."""

    name = "cholec80"
    title = "Cholec80: phases of gall bladder removals, PL-Stitch features"
    source = "huggingface.co/datasets/FelTris/pjepa_features, Cholec80"
    folders = ("Cholec80", ".")
    file = "cholec80_pl_stitch_vitb16_1fps.pt"
    published: ClassVar[Mapping[str, int]] = {"videos": 80, "classes": 7}
    """EndoNet (Twinanda et al., 2017)."""


class M2CAI16(Surgical):
    """M2CAI16-workflow: the challenge of 2016."""

    name = "m2cai16"
    title = "M2CAI16-workflow: phases of gall bladder removals, PL-Stitch features"
    source = "huggingface.co/datasets/FelTris/pjepa_features, m2cai"
    folders = ("m2cai", ".")
    file = "m2cai16_pl_stitch_vitb16_1fps.pt"
    published: ClassVar[Mapping[str, int]] = {"videos": 41}
    """The data card of P-JEPA's authors."""
