"""Many live streams on one `keystep serve`: latency of a step, frames that were dropped, and memory over time.

    python benchmarks/serve_load.py --streams 50 --minutes 10 --out benchmarks/results/serve_load.md

Starts a server in a process of its own, with a random model of a preset (its speed does not depend on the weights) and
features from a generator, and pushes each stream's frames over a WebSocket of its own, at random phases. The latency is
the server's: from the arrival of a frame to its answer, with the wait for the frames of other streams.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from websockets.asyncio.client import connect

import keystep
from keystep.config import ModelConfig
from keystep.config.base import build
from keystep.config.presets import preset_settings
from keystep.heads.linear import Affine, linear_head

STARTED = re.compile(r"http://127\.0\.0\.1:(\d+)/")


@dataclass
class Sample:
    """Seconds since the start, megabytes that the server holds, seconds of CPU that it has used."""

    seconds: float
    resident: float
    cpu: float


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        data, model, head = _made(Path(folder), options)
        command = [sys.executable, "-m", "keystep", "serve", data, "--model", model, "--head", head, "--port", "0"]
        command = [str(part) for part in (*command, "--source-rate", f"{options.rate:g}")]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}
        ) as server:
            try:
                assert server.stdout is not None
                found = next(found for line in server.stdout if (found := STARTED.search(line)))
                delays, samples = asyncio.run(_load(f"127.0.0.1:{found[1]}", server.pid, options))
                metrics = _read(f"http://127.0.0.1:{found[1]}/metrics")
            finally:
                server.terminate()
    report = _report(np.array(delays), samples, metrics, options)
    print(report)
    if options.out is not None:
        options.out.write_text(report, encoding="utf-8")


def _made(root: Path, options: argparse.Namespace) -> tuple[Path, Path, Path]:
    """A folder of features, a model, and a causal head of it."""
    torch.manual_seed(0)
    (root / "data" / "features").mkdir(parents=True)
    rng = np.random.default_rng(0)
    np.save(root / "data" / "features" / "a.npy", rng.normal(size=(300, options.width)).astype(np.float32))
    (root / "data" / "store.json").write_text('{"time_axis": 0}')
    settings = {**preset_settings(options.preset).get("model", {}), "input_dim": options.width}
    window = {} if options.window is None else {"live_attention": {"kind": "causal", "window": options.window}}
    model = keystep.PJEPA(build(ModelConfig, settings, window)).eval()
    model.save_pretrained(root / "model")
    model = keystep.load(root / "model")
    width = model.latent_dim(model.config.stream_attention)
    affine = Affine(torch.randn(20, width) / width, torch.zeros(20))
    origin = {"weights": model.fingerprint, "mode": "causal"}
    linear_head(affine, names=[f"step {number}" for number in range(20)], origin=origin).save(root / "head.safetensors")
    return root / "data", root / "model", root / "head.safetensors"


async def _load(host: str, process: int, options: argparse.Namespace) -> tuple[list[float], list[Sample]]:
    """Push all streams for the time asked for; returns the delays of all steps but those of the first ten seconds."""
    delays: list[float] = []
    ends = time.monotonic() + 60 * options.minutes
    rng = np.random.default_rng(1)
    frames = rng.normal(size=(256, options.width)).astype("<f4")
    streams = [await asyncio.to_thread(_opened, host, number) for number in range(options.streams)]
    phases = rng.uniform(0, 1 / options.rate, options.streams)
    work = [_push(host, stream, frames, phase, ends, options) for stream, phase in zip(streams, phases, strict=True)]
    listening = [asyncio.create_task(_listen(host, stream, delays, time.monotonic() + 10)) for stream in streams]
    watching = asyncio.create_task(_watch(process, ends))
    await asyncio.gather(*work)
    for task in listening:
        task.cancel()
    return delays, await watching


async def _push(
    host: str, stream: str, frames: np.ndarray, phase: float, ends: float, options: argparse.Namespace
) -> None:
    async with connect(f"ws://{host}/api/streams/{stream}/push") as socket:
        await socket.recv()
        began, sent = time.monotonic() + phase, 0
        while time.monotonic() < ends:
            await asyncio.sleep(max(0.0, began + sent / options.rate - time.monotonic()))
            await socket.send(frames[sent % len(frames)].tobytes())
            sent += 1


async def _listen(host: str, stream: str, delays: list[float], since: float) -> None:
    name, port = host.split(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    writer.write(f"GET /api/streams/{stream}/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    while line := await reader.readline():
        if line.startswith(b"data: ") and time.monotonic() > since:
            delays.append(json.loads(line[6:])["delay"])


async def _watch(process: int, ends: float) -> list[Sample]:
    began, samples = time.monotonic(), []
    while time.monotonic() < ends:
        await asyncio.sleep(10)
        status = Path(f"/proc/{process}/status").read_text()
        used = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        cpu = (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")
        resident = int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024
        samples.append(Sample(time.monotonic() - began, resident, cpu))
    return samples


def _opened(host: str, number: int) -> str:
    body = json.dumps({"source": {"kind": "push"}, "name": f"camera {number}"}).encode()
    request = urllib.request.Request(f"http://{host}/api/streams", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return str(json.load(answer)["id"])


def _read(address: str) -> str:
    with urllib.request.urlopen(address) as answer:
        return str(answer.read().decode())


def _report(delays: np.ndarray, samples: list[Sample], metrics: str, options: argparse.Namespace) -> str:
    counts = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    dropped = float(counts.get("keystep_stream_dropped_total", 0))
    p50, p99, most = 1e3 * np.percentile(delays, [50, 99, 100])
    used = (samples[-1].cpu - samples[0].cpu) / (samples[-1].seconds - samples[0].seconds)
    window = "its own live attention" if options.window is None else f"a live window of {options.window}"
    rows = "\n".join(f"| {sample.seconds:.0f} | {sample.resident:.0f} |" for sample in samples[:: options.every])
    command = f"python benchmarks/serve_load.py {' '.join(sys.argv[1:])}"
    return f"""# Many live streams

`{command}`

{options.streams} streams of {options.rate:g} Hz, {options.width} numbers a frame, for {options.minutes:g} minutes;
preset `{options.preset}` with {window}; torch {torch.__version__}, {os.cpu_count()} cores. {options.note}

| measured | |
|---|---|
| steps | {len(delays)} |
| p50, p99, longest (ms) | {p50:.0f}, {p99:.0f}, {most:.0f} |
| dropped | {dropped:.0f} |
| cores used | {used:.2f} |

| seconds | memory of the server, MiB |
|---|---|
{rows}
"""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--rate", type=float, default=5.0)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument(
        "--window", type=int, default=None, help="window of the live attention; by default the preset's"
    )
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--every", type=int, default=2, help="one row of memory for so many times ten seconds")
    parser.add_argument("--note", default="", help="what else ran")
    parser.add_argument("--out", type=Path, default=None)
    return parser.parse_args()


if __name__ == "__main__":
    main()
