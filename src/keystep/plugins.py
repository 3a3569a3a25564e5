"""The doors for outsiders: backbones, data sets, formats of annotations, heads, targets and tasks, and their origin.

A name is one of keystep's own, one that an installed package gives by an entry point of the group ``keystep.<kind>``,
or ``package.module:Name``. Nothing is imported before it is asked for. A file never decides which code runs: a
``package.module:Name`` is imported only where a person named it, as an argument, with ``--set`` or ``--plugin``, or by
`allow`; entry points were chosen when their package was installed.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import get_annotations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from keystep.errors import InputError, named, one_line, quoted

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

SPEC = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""``package.module:Name``"""

_allowed: set[str] = set()


def allow(*specs: str) -> None:
    """Let files name these plug-ins, ``package.module:Name`` each: their code runs once something asks for it.

    Raises:
        InputError: another form.
    """
    for spec in specs:
        if not SPEC.fullmatch(spec):
            raise InputError(f"plug-in {quoted(spec)}: expected package.module:Name")
    _allowed.update(specs)


def allowed() -> tuple[str, ...]:
    """What `allow` was told in this process, for processes that it starts."""
    return tuple(sorted(_allowed))


def specs_in(value: object) -> Iterator[str]:
    """Every ``package.module:Name`` in nested lists and dictionaries, such as a person's own settings."""
    if isinstance(value, str):
        if SPEC.fullmatch(value):
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from specs_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from specs_in(item)


@dataclass(frozen=True)
class Plugin:
    """One that can be used by name.

    kind: such as ``heads``. source: ``keystep``, or the distribution with its version and the place in it.
    problem: why it cannot be used; empty where it can.
    """

    kind: str
    name: str
    source: str
    problem: str = ""


class Registry:
    """The plug-ins of one kind.

    Args:
        kind: of the entry points' group ``keystep.<kind>``.
        noun: for messages, such as ``data set``.
        protocol: ``module:Name`` of the `typing.Protocol` that they follow.
        own: name -> ``module:Name`` of those that come with keystep.
    """

    def __init__(self, kind: str, noun: str, protocol: str, own: Mapping[str, str]) -> None:
        self.kind, self.noun, self.protocol, self.own = kind, noun, protocol, own

    def names(self) -> tuple[str, ...]:
        """keystep's own, then those of installed packages."""
        return tuple(dict.fromkeys([*self.own, *(entry.name for entry in self._installed())]))

    def check(self, name: str, others: Iterable[str] = ()) -> None:
        """Refuse a name that stands for nothing, or for code that only a file asked for; nothing is imported.

        Args:
            others: more names to suggest.

        Raises:
            InputError: says what there is, or how to name it again.
        """
        if name in self.own:
            return
        found = [entry for entry in self._installed() if entry.name == name]
        if len(found) > 1:
            both = " and ".join(_distribution(entry) for entry in found)
            raise InputError(f"{self.noun} {named(name)}: {both} both have one; name it as package.module:Name")
        if found or name in _allowed:
            return
        if SPEC.fullmatch(name):
            raise InputError(
                f"{self.noun} {name}: no file may choose the code that runs; if you trust it, name it yourself: "
                f"keystep --plugin {name} COMMAND ..., in Python keystep.plugins.allow({name!r})"
            )
        known = [*self.names(), *(other for other in others if other not in self.own)]
        near = difflib.get_close_matches(name, known, n=1)
        said = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}, or package.module:Name"
        raise InputError(f"unknown {self.noun} {quoted(name)}; {said}")

    def find(self, name: str) -> Any:
        """What a name stands for, imported now.

        Raises:
            InputError: what `check` refuses, a plug-in that cannot be imported, or one that lacks something.
        """
        self.check(name)
        if name in self.own:
            return _imported(self.own[name])
        entry = next((entry for entry in self._installed() if entry.name == name), None)
        spec, of = (name, "") if entry is None else (entry.value, f" of {_distribution(entry)}")
        try:
            found = _imported(spec)
        except Exception as error:
            what = f"{type(error).__name__}: {one_line(error)}"
            where = f"; looked in {Path.cwd()}, too" if isinstance(error, ModuleNotFoundError) and not of else ""
            raise InputError(f"{self.noun} {named(name)}{of}: cannot be imported: {what}{where}") from error
        lacking = missing(found, _imported(self.protocol))
        if lacking:
            protocol = self.protocol.replace(":", ".")
            raise InputError(f"{self.noun} {named(name)}{of}: lacks {', '.join(lacking)}; see {protocol}")
        return found

    def plugins(self) -> list[Plugin]:
        """All of them; those from outside are imported to see whether they can be."""
        found = [Plugin(self.kind, name, "keystep") for name in self.own]
        for entry in self._installed():
            source = f"{_distribution(entry)} ({entry.value})"
            if entry.name in self.own:
                found.append(Plugin(self.kind, entry.name, source, "keystep has one of this name, which is used"))
                continue
            try:
                self.find(entry.name)
                found.append(Plugin(self.kind, entry.name, source))
            except InputError as error:
                found.append(Plugin(self.kind, entry.name, source, str(error)))
        return found

    def _installed(self) -> list[EntryPoint]:
        from importlib.metadata import entry_points

        return sorted(entry_points(group=f"keystep.{self.kind}"), key=lambda entry: (entry.name, _distribution(entry)))


def missing(found: object, protocol: type) -> list[str]:
    """Names of a `typing.Protocol` that a value lacks."""
    bases = [base for base in protocol.__mro__ if base is not object and base is not Protocol]
    names = dict.fromkeys(name for base in bases for name in (*get_annotations(base), *vars(base)))
    wanted = [name for name in names if not name.startswith("_")]
    lacking = [name for name in wanted if not hasattr(found, name)]
    return lacking if "__call__" not in names or callable(found) else [*lacking, "a call"]


def _distribution(entry: EntryPoint) -> str:
    return "an unnamed package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _imported(spec: str) -> Any:
    """What ``package.module:Name`` names; looked for in the working folder, too, behind what is installed."""
    place, _, path = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    found: Any = import_module(place)
    for part in path.split("."):
        found = getattr(found, part)
    return found


HEADS = Registry(
    "heads",
    "head",
    "keystep.heads.head:HeadKind",
    {
        "linear": "keystep.heads.linear:LinearHead",
        "attentive": "keystep.heads.attentive:AttentiveProbe",
        "mstcn": "keystep.heads.mstcn:Mstcn",
        "context": "keystep.heads.long_context:LongContext",
    },
)

BACKBONES = Registry(
    "backbones",
    "backbone",
    "keystep.extraction.backbone:BackboneMaker",
    {
        "efficientnet-lite0": "keystep.extraction.backbones.efficientnet:load",
        "i3d": "keystep.extraction.backbones.i3d:load",
        "tsm": "keystep.extraction.backbones.tsm:load",
        "tsm-online": "keystep.extraction.backbones.tsm:load_online",
        **dict.fromkeys(
            (
                *("vjepa2-l", "vjepa2-h", "vjepa2-g", "vjepa2-g-384"),
                *("vjepa2.1-b", "vjepa2.1-l", "vjepa2.1-g", "vjepa2.1-G"),
            ),
            "keystep.extraction.backbones.vjepa:load",
        ),
    },
)

DATA_SETS = Registry(
    "datasets",
    "data set",
    "keystep.datasets.survey:Preparer",
    {
        "assembly101": "keystep.datasets.assembly101:Assembly101",
        "egoprocel": "keystep.datasets.egoprocel:EgoProceL",
        "egoexo4d": "keystep.datasets.egoexo4d:EgoExo4D",
        "breakfast": "keystep.datasets.mstcn:Breakfast",
        "50salads": "keystep.datasets.mstcn:Salads50",
        "gtea": "keystep.datasets.mstcn:GTEA",
        "captaincook4d": "keystep.datasets.captaincook4d:CaptainCook4D",
        "cholec80": "keystep.datasets.surgical:Cholec80",
        "m2cai16": "keystep.datasets.surgical:M2CAI16",
        "lerobot": "keystep.datasets.lerobot:LeRobot",
        "multibypass140": "keystep.datasets.multibypass140:MultiBypass140",
        "cataracts": "keystep.datasets.cataracts:Cataracts",
        "ikea-asm": "keystep.datasets.ikea_asm:IkeaASM",
    },
)

TARGETS = Registry(
    "targets",
    "target",
    "keystep.target:TargetKind",
    {
        "ema": "keystep.target:EmaTarget",
        "features": "keystep.target:FeatureTarget",
        "clusters": "keystep.target:ClusterTarget",
    },
)

TASKS = Registry(
    "tasks",
    "task",
    "keystep.evals.task:EvaluationTask",
    {
        "segmentation": "keystep.evals.judging:judge_all",
        "anticipate": "keystep.evals.anticipation:Anticipate",
        "remaining": "keystep.evals.anticipation:Remaining",
        "mistakes": "keystep.evals.mistakes_task:Mistakes",
    },
)

FORMATS = Registry(
    "formats",
    "format",
    "keystep.exchange.formats:Format",
    {
        "labelstudio": "keystep.exchange.labelstudio:LabelStudio",
        "elan": "keystep.exchange.elan:Elan",
        "cvat": "keystep.exchange.cvat:Cvat",
        "webvtt": "keystep.exchange.webvtt:WebVtt",
        "csv": "keystep.exchange.table:Table",
        "mstcn": "keystep.exchange.mstcn:MstcnText",
        "fiftyone": "keystep.exchange.fiftyone:FiftyOne",
        "lerobot": "keystep.exchange.lerobot:LeRobot",
        "rerun": "keystep.exchange.rerun_recording:Rerun",
        "mp4": "keystep.exchange.film:Film",
    },
)

REGISTRIES = (BACKBONES, DATA_SETS, FORMATS, HEADS, TARGETS, TASKS)
"""Of every kind."""
