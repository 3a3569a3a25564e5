"""Engines: what runs a function over named pieces of work, in processes of this machine or on a cluster.

Finished work is known by what lies on disk, so an engine neither stores nor orders results, and all engines write the
same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Protocol, TypeVar

from keystep.engines.local import Local
from keystep.engines.work import Begin, Report, Result, check_shared, device_of
from keystep.errors import InputError

__all__ = ["Begin", "Engine", "Local", "Report", "Result", "check_shared", "device_of", "find_engine"]

Outcome = TypeVar("Outcome")


class Engine(Protocol):
    """Runs a function over named pieces of work."""

    @property
    def alone(self) -> bool:
        """Whether the work is done by this process."""

    def kind(self) -> str:
        """The kind of device that workers compute on unless told otherwise, ``cuda`` or ``cpu``."""

    def run(
        self,
        begin: Begin[Outcome],
        jobs: Mapping[str, tuple[object, ...]],
        report: Report,
        device: str | None = None,
    ) -> Generator[tuple[str, Callable[[], Outcome]], None, None]:
        """Run all jobs. Close the generator to stop early; it ends all workers.

        Args:
            begin: called once in each worker with its number and a function that takes reports; returns the function
                that runs a job. It is pickled.
            jobs: name -> arguments, which are pickled.
            report: receives in this process what workers report.
            device: to compute on, such as ``cpu``; None: GPUs, if there are any.

        Yields:
            The name of each finished job, and a function that returns its result or raises its error: an
            `InputError` is a matter of this job alone.

        Raises:
            InputError: a matter of all jobs: no worker can begin, or one died.
        """


def find_engine(name: str, address: str | None = None, workers: int | None = None) -> Engine:
    """The engine of a name.

    Args:
        name: ``local`` or ``ray``.
        address: of the Ray cluster, see `keystep.engines.ray.Ray`.
        workers: number of workers. None: one for ``local``, as many as fit for ``ray``.

    Raises:
        InputError: an unknown name, an address for ``local``, or Ray is not installed.
    """
    if name == "ray":
        from keystep.engines.ray import Ray

        return Ray(address, workers)
    if name != "local":
        raise InputError(f"unknown --engine {name!r}; expected local or ray")
    if address is not None:
        raise InputError(f"--address {address} is for --engine ray; give both, or none")
    return Local(workers or 1)
