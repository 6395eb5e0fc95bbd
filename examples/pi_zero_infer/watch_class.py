"""Write 1 into FILE while a class is seen, else 0: python watch_class.py CLASS FILE -- blossom-edge infer ...

FILE is what you like: the green LED of a Raspberry Pi is /sys/class/leds/ACT/brightness.
"""

import json
import subprocess
import sys
from pathlib import Path

SURE = 0.6  # what is less sure counts as nothing
IN_A_ROW = 2  # so many equal windows make a change


def changes(lines):
    """The class that is seen, each time it has changed; empty for nothing sure."""
    shown, last, count = None, "", 0
    for line in lines:
        if not line.startswith('{"type": "prediction"'):
            continue
        found = json.loads(line)
        seen = found["labels"][0] if found["labels"] and found["confidence"] >= SURE else ""
        last, count = seen, count + 1 if seen == last else 1
        if count >= IN_A_ROW and seen != shown:
            shown = seen
            yield seen


if __name__ == "__main__":
    wanted, file, command = sys.argv[1], Path(sys.argv[2]), sys.argv[4:]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True) as infer:
        try:
            for seen in changes(infer.stdout):
                print(seen or "nothing sure", flush=True)
                file.write_text("1" if seen == wanted else "0")
        except KeyboardInterrupt:
            pass  # `infer` was interrupted too, and ends by itself
    file.write_text("0")
    sys.exit(infer.returncode)
