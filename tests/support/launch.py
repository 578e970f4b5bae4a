"""A launcher as a process of its own: `python -m tests.support.launch LAUNCHER SETTINGS LOCATION DEED [ARGUMENT]`."""

import json
import logging
import sys

from tritower.jobs import Job, open_launcher

logging.basicConfig(level=logging.INFO, stream=sys.stdout)
name, settings, where, *deed = sys.argv[1:]
job = Job(name="small", module="tests.support.pod", arguments=tuple(deed), outputs={"model": f"{where}/model"})
open_launcher(name, json.loads(settings)).run(job)
print("launched", flush=True)
