"""The Java process of Spark and its Python workers go with the process that started them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.conftest import WITH_SPARK
from tests.unit.ground import family

pytestmark = WITH_SPARK
QUERY = """
import sys, time
from pathlib import Path
import pyarrow as pa
from tritower.engine import open_engine

def kernel(batches):
    for batch in batches:
        Path(sys.argv[1]).touch()
        time.sleep(600)
        yield batch

with open_engine("spark", threads=1) as engine:
    engine.register("t", pa.table({"a": [1, 2, 3]}))
    Path(sys.argv[1]).touch()
    engine.session.range(2).mapInArrow(lambda batches: (time.sleep(600) or batch for batch in batches), "id long").collect()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_java_and_its_workers_go_with_the_step(tmp_path: Path, number: signal.Signals) -> None:
    marked = family.mark()
    command = [sys.executable, "-c", QUERY, str(tmp_path / "ready")]
    step = subprocess.Popen(command, env=os.environ | marked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    family.wait_for((tmp_path / "ready").exists, "Spark is there", seconds=120)
    family.wait_for(lambda: any("pyspark.daemon" in line for line in family.members(marked).values()), "workers", seconds=60)
    assert any("java" in line for line in family.members(marked).values())
    step.send_signal(number)
    step.wait(5)
    family.assert_gone(marked, seconds=10)
