"""The server as a process: how it ends."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.parametrize("request_to_stop", [signal.SIGINT, signal.SIGHUP])
def test_it_ends_at_once_though_a_page_listens_and_leaves_the_folder_free(
    mstcn: Path, request_to_stop: signal.Signals
) -> None:
    words = [sys.executable, "-m", "keystep", "serve", str(mstcn), "--source-rate", "4", "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said = process.stdout.readline()
    while "http://" not in said:
        said = process.stdout.readline()
    page = http.client.HTTPConnection("127.0.0.1", int(re.search(r":(\d+)/", said)[1]))  # type: ignore[index]
    page.request("GET", "/api/events")
    assert page.getresponse().read(5) == b": hel"
    began = time.monotonic()
    process.send_signal(request_to_stop)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in rest and "rror" not in rest
    assert time.monotonic() - began < 20
    assert not list(mstcn.parent.glob(".*.lock"))
