"""What stands for an image's python3 where a job's work does not matter: it leaves what the step looks for, and ends.

python -m tests.support.stub_worker ... -- MODULE ARGUMENTS --name=LOCATION ...
"""

import json
import sys
import tempfile
from pathlib import Path

from tritower import storage
from tritower.storage import staging

_FIGURES = {"validation_auc": 0.75, "validation_log_loss": 0.3}
_MADE = {
    "model": {"metrics.json": _FIGURES, "finetune.json": {"numbers": {"accepted": 1, "clicks": 3, "after_auc_shown": 0.75}}},
    "embeddings": {"encoder.json": {"name": "stub", "hash": "h", "dim": 8, "texts": 3}},
}

given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv if word.startswith("--") and "=" in word)
with tempfile.TemporaryDirectory() as scratch:
    for name, files in _MADE.items():
        if name in given:
            with storage.atomic_directory(Path(scratch) / name) as folder:
                for file, value in files.items():
                    (folder / file).write_text(json.dumps(value))
            storage.upload_tree(Path(scratch) / name, given[name])
if "metrics-file" in given:
    with staging.sent(given["metrics-file"]) as file:
        file.write_text("auc=0.75\n")
print("the stub has done its work", flush=True)
