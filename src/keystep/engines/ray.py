"""Work on the machines of a Ray cluster: one actor for each GPU, or for each share of processors."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from keystep.engines.ray_worker import Here, Said, Worker
from keystep.engines.work import Begin, Report, Result
from keystep.errors import InputError, one_line
from keystep.plugins import allowed
from keystep.workers import GRACE, REPORT_SECONDS

log = logging.getLogger(__name__)

MOST_DEATHS = 3
"""Workers that may die at one job, their machines aside, before the job is given up."""
LOOK_SECONDS = 2.0
"""Seconds between two looks at what machines there are."""


@dataclass(frozen=True)
class Ray:
    """Actors on a Ray cluster. A worker whose machine dies is replaced, and its job is done again by another.

    All machines need keystep, the same versions, and the same paths: inputs and outputs lie on a file system that they
    share. Machines that join are used.

    Attributes:
        address: ``HOST:6379`` of a cluster that this machine belongs to. None: as ``RAY_ADDRESS`` says, or else this
            machine alone.
        workers: most workers at a time. None: as many as fit.

    Raises:
        InputError: Ray is not installed.
    """

    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        _library()

    @property
    def alone(self) -> bool:
        """False: the work is never done by this process."""
        return False

    def kind(self) -> str:
        """See `keystep.engines.Engine`."""
        return "cuda" if any(_amount(node, "GPU") for node in _living(_connected(self.address))) else "cpu"

    def run(
        self,
        begin: Begin[Result],
        jobs: Mapping[str, tuple[object, ...]],
        report: Report,
        device: str | None = None,
    ) -> Generator[tuple[str, Callable[[], Result]], None, None]:
        """See `keystep.engines.Engine`. A job at which several workers died has an `InputError` of its own."""
        if device is not None and ":" in device:
            raise InputError(f"--device {device}: with --engine ray, each worker has one GPU; give cuda")
        if not jobs:
            return
        ray = _connected(self.address)
        share = _Share.of(_living(ray), device or self.kind())
        pool = _Pool(ray, begin, share, self.workers or math.inf, report)
        try:
            yield from pool.run(jobs)
        finally:
            pool.close()


def _library() -> Any:
    """The package ``ray``, which reports nothing to its makers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError("--engine ray needs Ray; install it with: pip install 'keystep[ray]'") from error
    return ray


def _connected(address: str | None) -> Any:
    """Ray, connected to a cluster until this process ends.

    Raises:
        InputError: no cluster there, or one with other versions.
    """
    ray = _library()
    address = address or os.environ.get("RAY_ADDRESS") or "local"  # else Ray waits for a cluster that died here
    if not ray.is_initialized():
        try:
            with _own_signals():
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **_alone(address))
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise InputError(f"--engine ray: no cluster at {address}: {one_line(error)}") from error
    return ray


def _alone(address: str) -> dict[str, Any]:
    """Options for a cluster that is started here."""
    return {"include_dashboard": False} if address == "local" else {}


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our answer to a request to stop, which Ray replaces by its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _living(ray: Any) -> list[dict[str, Any]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _amount(resources: Mapping[str, float], kind: str) -> int:
    return int(resources.get(kind, 0))


@dataclass(frozen=True)
class _Share:
    """What one worker has of its machine.

    Attributes:
        threads: processors, as many as this process has threads if the smallest machine has so many: the last bits of
            a result may depend on them.
        gpus: 1 or 0.
    """

    threads: int
    gpus: int

    @classmethod
    def of(cls, nodes: list[dict[str, Any]], kind: str) -> _Share:
        """The share on these machines.

        Raises:
            InputError: none of them has what is needed.
        """
        gpus = int(kind != "cpu")
        used = [node for node in nodes if _amount(node, "GPU" if gpus else "CPU")]
        if not used:
            raise InputError(f"--engine ray: none of {len(nodes)} machines has a {'GPU' if gpus else 'processor'} free")
        smallest = min(_amount(node, "CPU") // (_amount(node, "GPU") if gpus else 1) for node in used)
        return cls(max(1, min(torch.get_num_threads(), smallest)), gpus)

    def fitting(self, nodes: list[dict[str, Any]]) -> int:
        """How many workers fit on machines."""
        return sum(_amount(node, "GPU") if self.gpus else _amount(node, "CPU") // self.threads for node in nodes)


@dataclass(eq=False)
class _Handle:
    """A worker as this process knows it.

    Attributes:
        actor: its handle in Ray.
        job: what it is at; None: it begins, or has nothing to do.
        node: its machine, once it has begun.
        reports: call that fetches its reports, if one is under way.
        amount, count: sums of the reports on its job.
    """

    actor: Any
    job: str | None = None
    node: str = ""
    reports: Any = None
    amount: float = 0.0
    count: int = 0


@dataclass(eq=False)
class _Pool:
    """The workers of a run. Each has one job at a time and gets the next when it is done, so that nothing piles up.

    Attributes:
        ray: the package.
        begin, report: as in `keystep.engines.Engine.run`.
        share: of a machine for each worker.
        most: workers at a time.
    """

    ray: Any
    begin: Begin[Any]
    share: _Share
    most: float
    report: Report
    jobs: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    waiting: deque[str] = field(default_factory=deque)
    free: list[_Handle] = field(default_factory=list)
    calls: dict[Any, _Handle] = field(default_factory=dict)
    deaths: defaultdict[str | None, list[str]] = field(default_factory=lambda: defaultdict(list))
    room: int = 0
    looked: float = -math.inf
    started: int = 0

    def run(self, jobs: Mapping[str, tuple[object, ...]]) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Run all jobs, see `keystep.engines.Engine.run`."""
        self.jobs, self.waiting = jobs, deque(jobs)
        self.sent = self.ray.put(self.begin)
        while self.waiting or any(worker.job for worker in self.calls.values()):
            self._grow()
            self._assign()
            for call in self._finished():
                yield from self._take(self.calls.pop(call), call)
            self._forward()

    def close(self) -> None:
        """End all workers. Those at work get `GRACE` seconds to remove what is half written."""
        busy = {call: worker for call, worker in self.calls.items() if worker.job}
        for worker in busy.values():
            worker.actor.stop.remote()
        if busy:
            self.ray.wait(list(busy), num_returns=len(busy), timeout=GRACE)
        for worker in [*self.free, *self.calls.values()]:
            self.ray.kill(worker.actor)
        self.free, self.calls = [], {}

    def _grow(self) -> None:
        """Start workers while there is work and room for more."""
        if time.monotonic() - self.looked > LOOK_SECONDS:
            self.room, self.looked = self.share.fitting(_living(self.ray)), time.monotonic()
        size = len(self.free) + len(self.calls)
        busy = sum(worker.job is not None for worker in self.calls.values())
        for _ in range(size, int(min(self.most, self.room, len(self.waiting) + busy))):
            options = {"num_cpus": self.share.threads, "num_gpus": self.share.gpus, "max_concurrency": 2}
            actor = self.ray.remote(Worker).options(**options, max_restarts=0, scheduling_strategy="SPREAD")
            here = Here(self.started, self.share.threads, Path.cwd(), tuple(sys.path), allowed())
            worker = _Handle(actor.remote(here))
            self.calls[worker.actor.begin.remote([self.sent])] = worker
            self.started += 1

    def _assign(self) -> None:
        """Give a job to each free worker, and end those for which there is none."""
        while self.free:
            worker = self.free.pop()
            if not self.waiting:
                self.ray.kill(worker.actor)
                continue
            worker.job, worker.amount, worker.count = self.waiting.popleft(), 0.0, 0
            self.calls[worker.actor.work.remote(*self.jobs[worker.job])] = worker

    def _finished(self) -> list[Any]:
        """Calls that have ended; waits for the first of them."""
        if not self.calls:
            time.sleep(REPORT_SECONDS)
            return []
        self.ray.wait(list(self.calls), timeout=REPORT_SECONDS)
        ready: list[Any] = self.ray.wait(list(self.calls), num_returns=len(self.calls), timeout=0)[0]
        return ready

    def _take(self, worker: _Handle, call: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
        """The result of a call.

        Raises:
            InputError: no worker can begin.
        """
        name, worker.job = worker.job, None
        try:
            said: Said = self.ray.get(call)
            if worker.reports is not None:
                said.reports[:0] = self.ray.get(worker.reports)
                worker.reports = None
        except self.ray.exceptions.RayActorError as error:
            yield from self._bury(worker, name, error)
            return
        self._count(worker, said.reports)
        self.free.append(worker)
        if name is not None:
            yield name, said.result
        elif said.problem is not None:
            raise InputError(said.problem)
        else:
            worker.node = said.node
            self.deaths.pop(None, None)

    def _bury(self, worker: _Handle, name: str | None, error: Exception) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Have the job of a dead worker done again by another, unless it seems to be what kills them."""
        self.ray.kill(worker.actor)
        self.looked = -math.inf
        self._count(worker, [(-worker.amount, -worker.count)])
        self.deaths[name].append(worker.node)
        alive = {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}
        if sum(not node or node in alive for node in self.deaths[name]) >= MOST_DEATHS:
            reason = f"{MOST_DEATHS} workers died, possibly out of memory ({one_line(error, 200)})"
            if name is None:
                raise InputError(f"--engine ray: no worker can begin: {reason}")
            yield name, Said(problem=f"{name}: {reason}").result
        elif name is not None:
            log.info("%s: its worker died; another one does it again", name)
            self.waiting.appendleft(name)

    def _forward(self) -> None:
        """Fetch the reports of workers, and pass on what has arrived."""
        for worker in self.calls.values():
            if worker.job is not None and worker.reports is None:
                worker.reports = worker.actor.reports.remote()
        asked = {worker.reports: worker for worker in self.calls.values() if worker.reports is not None}
        if not asked:
            return
        for call in self.ray.wait(list(asked), num_returns=len(asked), timeout=0)[0]:
            asked[call].reports = None
            with suppress(self.ray.exceptions.RayActorError):  # its job says so, too
                self._count(asked[call], self.ray.get(call))

    def _count(self, worker: _Handle, reports: list[tuple[float, int]]) -> None:
        for amount, count in reports:
            worker.amount, worker.count = worker.amount + amount, worker.count + count
            self.report(amount, count)
