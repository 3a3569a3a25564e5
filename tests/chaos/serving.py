"""A server that is killed while people save labels: whatever it said was saved is there when it starts again.

Several people edit several videos at once, each in its own way, and note what the server acknowledged. After each kill
a new server has to know every acknowledged revision, and the files have to say what it says.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from arena import Tally, start

from keystep.data.annotation import read_labels, read_mapping
from keystep.data.spans import Span, spans_of

PEOPLE, VIDEOS, SLOTS, CLASSES = 3, 3, 60, 3
LONGEST = 60.0
"""Seconds that a start may take on a busy machine."""


@dataclass
class Told:
    """What the server acknowledged: video -> revision -> spans, and the names of the classes."""

    saved: dict[int, dict[int, list[Span]]] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def count(self) -> int:
        """Revisions that were acknowledged."""
        with self.lock:
            return sum(map(len, self.saved.values()))


class Served:
    """A command that serves, started and killed again and again.

    Attributes:
        words: of the command, but for its port.
    """

    words: list[str]

    def __init__(self, folder: Path) -> None:
        import uvicorn.protocols.http.auto  # once, so that forked servers start quickly
        import uvicorn.protocols.websockets.auto  # noqa: F401

        import keystep.serve.app  # noqa: F401

        self.folder, self.tally = folder, Tally()

    @contextmanager
    def served(self, number: int) -> Iterator[tuple[int, int]]:
        """Run it; its id and its port. It is killed at the end, if it was not before."""
        log = self.folder / f"{number}.log"
        child = start([*self.words, "--port", "0"], log)
        try:
            yield child, self._port(child, log)
        finally:
            os.killpg(child, signal.SIGKILL)
            self.tally.in_the_work += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) < 0
            if "Traceback" in log.read_text():
                self.tally.faults.append(f"a traceback, {log}: {log.read_text()[-500:]}")

    def _port(self, child: int, log: Path) -> int:
        began = time.monotonic()
        while time.monotonic() - began < LONGEST:
            said = log.read_text() if log.exists() else ""
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", said)
            if found:
                return int(found[1])
            time.sleep(0.02)
        raise RuntimeError(f"no server after {LONGEST} s: {said}")


class Serving(Served):
    """One feature folder, served and killed while people save."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder)
        self.random, self.told = random.Random(seed), Told()
        self.data = folder / "data"
        self.words = ["serve", str(self.data), "--source-rate", "4"]
        (self.data / "features").mkdir(parents=True)
        for video in range(VIDEOS):
            rows = np.random.default_rng(video).normal(size=(SLOTS + video, 4))  # none is as long as another
            np.save(self.data / "features" / f"v{video}.npy", rows.astype(np.float32))

    def kill(self, times: int) -> None:
        """Kill the server so often, at random moments, while it is asked to save."""
        for number in range(times):
            with self.served(number) as (child, port):
                self._compare(port, number)
                stop = threading.Event()
                people = [
                    threading.Thread(target=self._edit, args=(port, random.Random(f"{number}/{person}"), stop))
                    for person in range(PEOPLE)
                ]
                for person in people:
                    person.start()
                self._wait_for(self.random.randint(1, 12))
                time.sleep(self.random.uniform(0, 0.05))
                os.killpg(child, signal.SIGKILL)
                stop.set()
                for person in people:
                    person.join()
            self.tally.kills += 1
        with self.served(times) as (_, port):
            self._compare(port, times)
        self._compare_files()
        if self.told.count < times:
            self.tally.faults.append(f"only {self.told.count} saves were acknowledged before {times} kills")

    def _wait_for(self, saves: int) -> None:
        """Wait until so many more were acknowledged."""
        goal, began = self.told.count + saves, time.monotonic()
        while self.told.count < goal and time.monotonic() - began < LONGEST:
            time.sleep(0.002)

    def _edit(self, port: int, drawn: random.Random, stop: threading.Event) -> None:
        """One person: looks, changes something, saves, and notes what was acknowledged."""
        try:
            while not stop.is_set():
                video = drawn.randrange(VIDEOS)
                _, annotation = ask(port, "GET", f"/api/videos/{video}/annotation")
                label = f"class {drawn.randrange(CLASSES)}"
                if label not in self.told.classes:
                    status, _ = ask(port, "POST", "/api/classes", {"name": label})
                    with self.told.lock:
                        self.told.classes |= {label} if status in (201, 409) else set()
                start = drawn.randrange(SLOTS - 1)
                body = {
                    "base_revision": annotation["revision"],
                    "spans": changed(annotation["spans"], start, drawn.randint(start + 1, SLOTS), label),
                }
                status, answer = ask(port, "PUT", f"/api/videos/{video}/annotation", body)
                if status == 200:
                    spans = [Span(**span) for span in answer["spans"]]
                    with self.told.lock:
                        self.told.saved.setdefault(video, {})[answer["revision"]] = spans
                elif status != 409:
                    self.tally.faults.append(f"a save was answered {status}: {answer}")
        except (OSError, http.client.HTTPException, ValueError):
            return  # the server was killed

    def _compare(self, port: int, number: int) -> None:
        """The new server knows all that the old ones acknowledged."""
        _, project = ask(port, "GET", "/api/project")
        lost = self.told.classes - {each["name"] for each in project["classes"]}
        if lost:
            self.tally.faults.append(f"start {number}: classes were lost: {lost}")
        for video, saved in self.told.saved.items():
            _, found = ask(port, "GET", f"/api/videos/{video}/annotation")
            last = max(saved)
            if found["revision"] < last:
                self.tally.faults.append(f"start {number}: video {video} lost revisions {found['revision']} to {last}")
            spans = [Span(**span) for span in found["spans"]]
            if found["revision"] == last and spans != saved[last]:
                self.tally.faults.append(f"start {number}: revision {last} of video {video} has other spans")

    def _compare_files(self) -> None:
        """The log holds every acknowledged revision, and the files hold the last one."""
        logged: dict[tuple[str, int], list[Span]] = {}
        last: dict[str, int] = {}
        for line in (self.data / "annotations.jsonl").read_text().splitlines():
            record = json.loads(line)
            logged[record["video"], record["revision"]] = [Span(*span) for span in record["spans"]]
            last[record["video"]] = record["revision"]
        for video, saved in self.told.saved.items():
            for revision, spans in saved.items():
                if logged.get((f"v{video}", revision)) != spans:
                    self.tally.faults.append(f"the log lacks revision {revision} of video {video}")
        classes = read_mapping(self.data / "mapping.txt")
        for name, revision in last.items():
            labels = read_labels(self.data / "groundTruth" / f"{name}.txt", classes)
            shown = [(span.start, span.stop, span.label) for span in spans_of(labels, classes)]
            if shown != merged(logged[name, revision]):
                self.tally.faults.append(f"groundTruth/{name}.txt is not revision {revision}")


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, dict]:
    """Status and answer of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or "{}")
    finally:
        connection.close()


def changed(spans: list[dict], start: int, stop: int, label: str) -> list[dict]:
    """The spans with another label from ``start`` to ``stop``."""
    cut = [{"start": start, "stop": stop, "label": label}]
    for span in spans:
        cut += [{**span, "stop": min(span["stop"], start)}, {**span, "start": max(span["start"], stop)}]
    return sorted((span for span in cut if span["start"] < span["stop"]), key=lambda span: span["start"])


def merged(spans: list[Span]) -> list[tuple[int, int, str]]:
    """Spans as a file with one label a line tells them: neighbours of one class are one."""
    found: list[tuple[int, int, str]] = []
    for span in sorted(spans):
        if found and found[-1][1:] == (span.start, span.label):
            found[-1] = (found[-1][0], span.stop, span.label)
        else:
            found.append((span.start, span.stop, span.label))
    return found
