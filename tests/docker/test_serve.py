"""The image `serve` as a pod runs it: no network, a read-only root, any user (`make images && make test-docker`)."""

import json
import subprocess
import time
from collections.abc import Iterator

import pytest
from tritower._build import image_name

from pipelines.containers import SCRATCH, on_this_machine
from tests.support.bundles import small_bundle

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]
START_S = 300.0
ASK = """
import json, sys, urllib.request
body = json.dumps({"query": "registered nurse", "k": 3, "explain": True}).encode()
asked = urllib.request.Request("http://127.0.0.1:8080/rank", body, {"Content-Type": "application/json"})
print(urllib.request.urlopen(asked, timeout=60).read().decode())
"""
COMPILED = """
import pathlib
def code(folder):
    return {str(file.relative_to(folder)) for file in pathlib.Path(folder).rglob("*.nbc")}
built = code("/opt/tritower/numba")
print(len(built), sorted(code("/tmp/numba") - built))
"""


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A container that serves a small bundle and takes requests."""
    image = on_this_machine(image_name("serve"))  # type: ignore[arg-type]
    if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode:
        pytest.skip("NOT RUN: `make images` with serve first")
    folder = small_bundle(tmp_path_factory.mktemp("serve"))
    container = docker(
        "run", "--detach", "--network", "none", "--read-only", "--tmpfs", f"/tmp:{SCRATCH}", "--user", "4711:0",
        "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--volume", f"{folder}:/bundle:ro", image,
        "python3", "-m", "tritower.serving", "serve", "--bundle", "/bundle", "--config", '{"as_of": "last_event"}',
    ).strip()  # fmt: skip
    try:
        end = time.monotonic() + START_S
        while "http://127.0.0.1:8080" not in docker("logs", container):
            assert docker("inspect", "-f", "{{.State.Running}}", container).strip() == "true", docker("logs", container)
            assert time.monotonic() < end, "it did not come to serve in time"
            time.sleep(0.5)
        yield container
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True, timeout=120)


def test_a_search_is_answered_without_network_root_or_a_file_system_to_write_to(server: str) -> None:
    answer = json.loads(docker("exec", server, "python3", "-c", ASK))
    assert [job["rank"] for job in answer["jobs"]] == [1, 2, 3]
    assert all(job["reasons"] for job in answer["jobs"])
    assert docker("exec", server, "id", "-u").strip() == "4711"
    assert docker("exec", server, "python3", "-c", "import os; print(os.listdir('/sys/class/net'))").strip() == "['lo']"


def test_all_kernels_are_compiled_when_the_image_is_built(server: str) -> None:
    """A read-only container forgets what it compiles: each start would pay for it again."""
    docker("exec", server, "python3", "-c", ASK)
    count, _, new = docker("exec", server, "python3", "-c", COMPILED).strip().partition(" ")
    assert int(count) > 100
    assert new == "[]"


def test_it_ends_in_order(server: str) -> None:
    docker("stop", "-t", "60", server)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", server).strip() == "0"
