"""A search on a cluster as a process of its own: `python -m tests.support.tune SETTINGS LOCATION CONFIG`."""

import json
import logging
import sys

from tritower.config import from_dict
from tritower.jobs import Job
from tritower.searches import open_searcher
from tritower.tuning.config import TuningConfig
from tritower.tuning.launched import described

logging.basicConfig(level=logging.INFO, stream=sys.stdout)
settings, where, config = sys.argv[1:]
job = Job(name="tune", module="tests.support.trainer", inputs={"features": f"{where}/features"})
search = described(from_dict(TuningConfig, config))
found = open_searcher("katib", json.loads(settings)).run(job, search, f"{where}/tune_trials")
print(f"searched {len(found)}", flush=True)
