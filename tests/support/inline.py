"""An engine whose only worker is a copy of what was pickled, in this process: what workers do, without their cost."""

import pickle
from collections.abc import Callable, Generator, Mapping
from typing import Any

from keystep.engines import Begin, Report


class Inline:
    """Jobs in a fresh copy of the worker, latest first, as no order may matter."""

    alone = False

    def __init__(self) -> None:
        self.jobs: list[str] = []

    def kind(self) -> str:
        return "cpu"

    def run(
        self, begin: Begin[Any], jobs: Mapping[str, tuple[object, ...]], report: Report, device: str | None = None
    ) -> Generator[tuple[str, Callable[[], Any]], None, None]:
        work = pickle.loads(pickle.dumps(begin))(0, report) if jobs else None
        for name in reversed(jobs):
            self.jobs.append(name)
            yield name, lambda name=name: work(*pickle.loads(pickle.dumps(jobs[name])))
