"""A server that is killed while live streams run: each goes on, and what is asked for again is answered the same.

Clients push the same frames, each at its own moments. After each kill a new server has to know every stream that was
opened and none that was ended, to say from which frame each goes on, never an earlier one than the server before said,
and to answer that frame and all later ones as a stream does that nobody interrupts.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from serving import LONGEST, Served, ask

STREAMS, FRAMES, WIDTH, RATE = 3, 2_000, 6, 4
AT_ONCE = 8
"""Frames of a message; a stream takes eight times its rate for long."""
NEAR = 1e-3
"""By how much a probability may differ from that of another run."""


class Streaming(Served):
    """One feature folder with a model and a head, served and killed again and again."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder)
        self.random = random.Random(seed)
        data, model, head = folder / "data", folder / "model", folder / "head.safetensors"
        (data / "features").mkdir(parents=True)
        self.frames = np.random.default_rng(seed).normal(size=(FRAMES, WIDTH)).astype("<f4")
        np.save(data / "features" / "v.npy", self.frames)
        (data / "store.json").write_text('{"time_axis": 0}')
        child = os.fork()  # whose threads those of the networks are
        if not child:
            _write_networks(model, head)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        self.words = ["serve", str(data), "--source-rate", str(RATE), "--model", str(model), "--head", str(head)]
        self.open: set[str] = set()
        self.next: dict[str, int] = {}
        self.told: dict[str, dict[int, tuple[str, float]]] = {}
        self.lock = threading.Lock()
        self.again = 0

    def kill(self, times: int) -> None:
        """Kill the server so often, at random moments, while streams run; then compare with one that ran through."""
        for number in range(times):
            with self.served(number) as (child, port):
                self._compare(port, number)
                self._open_and_end(port)
                stop = threading.Event()
                clients = [threading.Thread(target=self._push, args=(port, one, stop)) for one in sorted(self.open)]
                listeners = [threading.Thread(target=self._listen, args=(port, one)) for one in sorted(self.open)]
                for thread in (*listeners, *clients):
                    thread.start()
                time.sleep(self.random.uniform(0.5, 9))
                os.killpg(child, signal.SIGKILL)
                stop.set()
                for thread in (*clients, *listeners):
                    thread.join()
            self.tally.kills += 1
        with self.served(times) as (_, port):
            self._compare(port, times)
            self._compare_with_whole(port)
        if not self.again:
            self.tally.faults.append(f"no frame was asked for again in {times} kills: nothing was tried")

    def _compare(self, port: int, number: int) -> None:
        """The new server knows the streams, and goes on with each where it was saved, or later."""
        _, found = ask(port, "GET", "/api/streams")
        items = {item["id"]: item for item in found["items"]}
        if set(items) != self.open:
            self.tally.faults.append(f"start {number}: streams {sorted(items)}, and not {sorted(self.open)}")
        for identifier in self.open & set(items):
            item, last = items[identifier], self.next.get(identifier, 0)
            if not last <= item["next"] <= FRAMES or item["dropped"] or item["state"] != "waiting":
                self.tally.faults.append(f"start {number}: after frame {last}, {item}")
            self.next[identifier] = item["next"]
            self.again += max(self.told.get(identifier, {}), default=-1) >= item["next"]

    def _open_and_end(self, port: int) -> None:
        """There are always `STREAMS`, of which now and then one is another."""
        if len(self.open) == STREAMS and self.random.random() < 0.3:
            ended = self.random.choice(sorted(self.open))
            assert ask(port, "DELETE", f"/api/streams/{ended}")[0] == 204
            self.open.remove(ended)
        while len(self.open) < STREAMS:
            self.open.add(_opened(port))

    def _push(self, port: int, identifier: str, stop: threading.Event) -> None:
        """A client: asks where to go on, and pushes until the server or the frames end."""
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        pause = 1.2 * AT_ONCE / (8 * RATE)
        address = f"ws://127.0.0.1:{port}/api/streams/{identifier}/push"
        with suppress(OSError, WebSocketException), connect(address, open_timeout=LONGEST) as socket:
            first = json.loads(socket.recv())["next"]
            for start in range(first, len(self.frames), AT_ONCE):
                if stop.wait(pause):
                    return
                socket.send(self.frames[start : start + AT_ONCE].tobytes())

    def _listen(self, port: int, identifier: str) -> None:
        """Whoever reads the steps: a frame that is told again has the same answer."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST)
        with suppress(OSError, http.client.HTTPException, ValueError):
            connection.request("GET", f"/api/streams/{identifier}/events")
            for line in connection.getresponse():
                if line.startswith(b"data: "):
                    self._note(identifier, json.loads(line[6:]))
        connection.close()

    def _note(self, identifier: str, step: dict) -> None:
        frame, said = step["frame"], (step["step"], step["probability"])
        with self.lock:
            before = self.told.setdefault(identifier, {}).setdefault(frame, said)
            if _differ(before, said):
                self.tally.faults.append(f"frame {frame} of {identifier} was {before}, then {said}")

    def _compare_with_whole(self, port: int) -> None:
        """What was told in pieces is what one stream without an interruption is told."""
        whole, most = _opened(port), max(max(told, default=0) for told in self.told.values()) + 1
        listener, stop = threading.Thread(target=self._listen, args=(port, whole)), threading.Event()
        listener.start()
        self.frames = self.frames[: -(-most // AT_ONCE) * AT_ONCE]
        client = threading.Thread(target=self._push, args=(port, whole, stop))
        client.start()
        began = time.monotonic()
        while len(self.told.get(whole, ())) < most and time.monotonic() - began < LONGEST + most / RATE:
            time.sleep(0.1)
        stop.set()
        ask(port, "DELETE", f"/api/streams/{whole}")
        client.join()
        listener.join()
        expected = self.told.pop(whole, {})
        for identifier, told in self.told.items():
            wrong = [frame for frame, said in told.items() if frame not in expected or _differ(said, expected[frame])]
            if wrong:
                self.tally.faults.append(
                    f"{identifier}: {len(wrong)} of {len(told)} frames differ, from {min(wrong)} on"
                )


def _opened(port: int) -> str:
    status, found = ask(port, "POST", "/api/streams", {"source": {"kind": "push"}})
    assert status == 201, found
    return str(found["id"])


def _differ(one: tuple[str, float], other: tuple[str, float]) -> bool:
    return abs(one[1] - other[1]) > NEAR or (one[0] != other[0] and abs(one[1] - 0.5) > NEAR)


def _write_networks(model: Path, head: Path) -> None:
    """A random model with a window, and a head of its live latents."""
    import torch

    import keystep
    from keystep.config import ModelConfig
    from keystep.config.base import build
    from keystep.heads.linear import Affine, linear_head

    torch.manual_seed(0)
    live = {"kind": "causal", "window": 40}
    settings = {"input_dim": WIDTH, "dim": 16, "depth": 1, "heads": 2, "readout_dim": 16, "live_attention": live}
    made = keystep.PJEPA(build(ModelConfig, settings)).eval()
    made.save_pretrained(model)
    width = made.latent_dim(made.config.stream_attention)
    affine = Affine(torch.randn(3, width), torch.zeros(3))
    origin = {"weights": keystep.load(model).fingerprint, "mode": "causal"}
    linear_head(affine, names=("wait", "cut", "tie"), origin=origin).save(head)
