"""A small program with the ranker's command line: its figure is known from its knobs, so that a search can be checked.

auc(epoch) = peak - 0.2 (log10(rate) + 2)^2 - 0.05 / epoch, with peak .8 for width "128,64" and .7 otherwise.
"""

import json
import math
import sys
import time
from pathlib import Path

given = dict(part.removeprefix("--").split("=", 1) for part in sys.argv[1:])
knobs = json.loads(given["config"])
if knobs.get("fail") == "yes":
    print("cannot open the features")
    sys.exit(3)
rate, width = float(knobs.get("rate", 0.5)), knobs.get("width", "64")
peak = 0.8 if width == "128,64" else 0.7
Path(given["model"]).mkdir(parents=True)
with Path(given["metrics-file"]).open("a") as out:
    for epoch in range(1, int(knobs.get("epochs", 3)) + 1):
        auc = peak - 0.2 * (math.log10(rate) + 2) ** 2 - 0.05 / epoch
        out.write(f"log_loss={1 - auc}\nauc={'nan' if knobs.get('nan') else auc}\n")
        out.flush()
        time.sleep(float(knobs.get("pause_s", 0)))
