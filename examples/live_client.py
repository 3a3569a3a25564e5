"""Push features to `keystep serve` at the rate of a live stream, and print the steps: live_client.py FEATURES.npy"""

import json
import sys
import threading
import time
import urllib.request

import numpy as np
from websockets.sync.client import connect

host, rows = "127.0.0.1:8000", np.load(sys.argv[1]).astype("<f4")  # (T, D)
body, kind = b'{"source": {"kind": "push"}}', {"Content-Type": "application/json"}
answer = urllib.request.urlopen(urllib.request.Request(f"http://{host}/api/streams", body, kind))
stream = f"{host}/api/streams/{json.load(answer)['id']}"


def listen() -> None:
    for line in urllib.request.urlopen(f"http://{stream}/events"):
        print(line.decode().strip(), flush=True)


threading.Thread(target=listen, daemon=True).start()
with connect(f"ws://{stream}/push") as socket:
    hello = json.loads(socket.recv())  # {next, width, rate, format}
    for row in rows[hello["next"] :]:
        socket.send(row.tobytes())
        time.sleep(1 / hello["rate"])
