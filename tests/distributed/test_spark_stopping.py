"""The Java process of Spark and its Python workers go with the process that started them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.conftest import WITH_SPARK
from tests.support import family

pytestmark = WITH_SPARK
QUERY = """
import time
from tritower.engines.session import find_session

session = find_session("512MiB", 1)
session.range(2).mapInArrow(lambda batches: (time.sleep(600) or batch for batch in batches), "id long").collect()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_java_and_its_workers_go_with_the_step(tmp_path: Path, number: signal.Signals) -> None:
    marked = family.mark()
    with (tmp_path / "log").open("wb") as log:
        step = subprocess.Popen([sys.executable, "-c", QUERY], env=os.environ | marked, stdout=log, stderr=log)

    def there(program: str) -> bool:
        return any(program in line for line in family.members(marked).values())

    try:
        family.wait_for(lambda: there("java") and there("pyspark.daemon"), "Java and a Python worker", seconds=240)
        step.send_signal(number)
        step.wait(300)
        family.assert_gone(marked)
    finally:
        family.end(marked)
