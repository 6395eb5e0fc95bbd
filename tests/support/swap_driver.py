"""`python -m support.swap_driver ROOT WORD [VERSION]`: a torch-free device as a real process, to be killed by tests.

show           start, say what runs, end without a clean end
offer VERSION  receive this version of all blocks as a client does, and offer it with own heads
rollback       back to the generation before
run            start and predict until SIGTERM, then end cleanly; abort at the first window if version 2 runs
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
from pathlib import Path

import numpy as np

from blossom_edge.client.actions import Held
from blossom_edge.client.store import Store
from blossom_edge.inference.live import LiveModel
from support.swapping import FEDERATION, STORED, held_at, live_model, outputs, own_head, windows


def say(live: LiveModel) -> None:
    """One line: generation, versions, the own head's bias, a sum of outputs."""
    now = live.current
    found = {
        "number": now.number if now is not None else 0,
        "versions": sorted(set(now.shown().values())) if now is not None else [],
        "head": float(now.heads["har"].tensors["layers.0.bias"][0]) if now is not None and now.heads else None,
        "outputs": float(np.abs(outputs(now, windows(2))).sum()) if now is not None else None,
        "refused": sorted({r.reason for r in live.folder.state.refused}),
        "damage": live.folder.damage,
    }
    print(json.dumps(found), flush=True)


def main() -> None:
    """Do what the arguments say."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    root, word = Path(sys.argv[1]), sys.argv[2]
    store = Store(root, "pi")
    store.enter(FEDERATION)
    live = live_model(store.place, boot=store.boot)
    if word == "offer":
        number = int(sys.argv[3])
        held = held_at(number)
        for key, received in held.items():
            store.keep_block(key, Held(received.version, received.sha256, received.data))
        live.offer(held, windows=STORED, make_heads=lambda model, before: {"har": own_head(number)})
        live.proved()
    elif word == "rollback":
        live.rollback(reason="by hand")
    elif word == "run":
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        say(live)
        while not stop.wait(0.01):
            if live.current is not None and 2 in live.current.shown().values():
                os.abort()
            outputs(live.current, windows(1))
        live.ended()
    say(live)
    store.close()


if __name__ == "__main__":
    main()
