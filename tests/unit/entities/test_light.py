"""What the step imports: nothing that our own model computes without."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tritower import schema

PROGRAM = """
import sys
from tritower.entities import step
from tritower.entities.config import EntitiesConfig
step.run(dataset=sys.argv[1], entities=sys.argv[2], config=EntitiesConfig())
assert "torch" not in sys.modules and "spacy" in sys.modules, sorted(name for name in sys.modules if "." not in name)
import torch
print("torch", torch.ones(2).sum().item())
"""


def test_the_step_imports_no_torch_and_leaves_it_to_others(tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    flags = {name: [True] for name in ("is_query", "is_title", "is_document", "is_profile", "is_description")}
    pq.write_table(
        pa.table({"text": [0], "value": ["nurse"], **flags}, schema=schema.DATASET_TEXTS.arrow()), dataset / "texts.parquet"
    )
    pq.write_table(pa.table({"company": ["Microsoft"]}), dataset / "jobs.parquet")
    arguments = [str(dataset), str(tmp_path / "entities")]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "torch 2.0"
