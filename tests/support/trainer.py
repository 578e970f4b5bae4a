"""A small program with the ranker's command line: its figure is known from its knobs, so that a search can be checked.

auc(epoch) = peak - 0.2 (log10(rate) + 2)^2 - 0.05 / epoch, with peak .8 for width "128,64" and .7 otherwise.
"""

import json
import math
import sys
import time

from tritower.storage import staging

given = dict(part.removeprefix("--").split("=", 1) for part in sys.argv[1:])
knobs = json.loads(given["config"])
if knobs.get("fail") == "yes":
    print("cannot open the features")
    sys.exit(3)
print(f"training with {knobs}", flush=True)
rate, width = float(knobs.get("rate", 0.5)), knobs.get("width", "64")
peak = 0.8 if width == "128,64" else 0.7
with staging.staged({}, {name: given[name] for name in ("model", "metrics-file")}) as places:
    places["model"].mkdir(parents=True)
    (places["model"] / "weights").write_text("none")
    places["metrics-file"].parent.mkdir(parents=True, exist_ok=True)
    with places["metrics-file"].open("a") as out:
        for epoch in range(1, int(knobs.get("epochs", 3)) + 1):
            auc = peak - 0.2 * (math.log10(rate) + 2) ** 2 - 0.05 / epoch
            out.write(f"log_loss={1 - auc}\n")
            if not knobs.get("silent"):
                out.write(f"auc={'nan' if knobs.get('nan') else auc}\n")
            out.flush()
            time.sleep(float(knobs.get("pause_s", 0)))
