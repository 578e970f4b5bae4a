"""The compiled pipeline in real containers: `make images && make test-docker`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import docker
import pytest
from tritower._build import image_name

from pipelines.containers import run_container, runner_arguments

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return docker.from_env()


def pipelines(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pipelines", *arguments], check=True, cwd=ROOT)


def test_a_container_that_fails_at_once_is_a_failure(client: docker.DockerClient) -> None:
    for code in (0, 3):
        program = ["python3", "-c", f"raise SystemExit({code})"]
        assert run_container(client, image_name("base"), program, {}, **runner_arguments(read_only=[])) == code


def test_a_container_has_no_network_and_a_read_only_root(
    client: docker.DockerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    program = "import os, pathlib\nprint(sorted(os.listdir('/sys/class/net')))\npathlib.Path('/opt/x').touch()"
    assert run_container(client, image_name("base"), ["python3", "-c", program], {}, **runner_arguments(read_only=[])) == 1
    output = capsys.readouterr().out
    assert "['lo']" in output
    assert "Read-only file system" in output


def test_an_entry_point_does_not_swallow_the_command(client: docker.DockerClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f'FROM {image_name("base")}\nENTRYPOINT ["python3", "-c", "raise SystemExit(9)"]\n')
    subprocess.run(["docker", "build", "-q", "-t", "tritower/test-entrypoint:1", str(tmp_path)], check=True)
    try:
        assert run_container(client, "tritower/test-entrypoint:1", ["true"], {}, **runner_arguments(read_only=[])) == 0
    finally:
        client.images.remove("tritower/test-entrypoint:1", force=True)


def test_torch_in_the_base_image_fails_its_smoke_check(tmp_path: Path) -> None:
    """A module called torch, planted into a copy of the base image, is found by the check that `make images` runs."""
    (tmp_path / "torch.py").write_text("")
    place = "/opt/tritower/lib/python3.11/site-packages/torch.py"
    (tmp_path / "Dockerfile").write_text(f"FROM {image_name('base')}\nCOPY torch.py {place}\n")
    environment = os.environ | {"TRITOWER_IMAGE_TAG": "test-planted-torch"}
    planted = f"{os.environ.get('TRITOWER_IMAGE_PREFIX', 'tritower')}/base:test-planted-torch"
    subprocess.run(["docker", "build", "-q", "-t", planted, str(tmp_path)], check=True)
    try:
        command = [sys.executable, "images/build.py", "check", "base"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode != 0
        assert "torch must not be installed" in done.stderr
    finally:
        subprocess.run(["docker", "image", "rm", "-f", planted], check=True)


def test_containers_give_the_metrics_of_subprocesses(tmp_path: Path) -> None:
    log = tmp_path / "log"
    subprocess.run(
        [sys.executable, "-m", "tritower.simulate", "--out", str(log), "--impressions", "20000", "--seed", "3"], check=True
    )
    metrics = {}
    for place in ("local", "docker"):
        out = tmp_path / place
        where = [f"--{place}", "--root", str(tmp_path / f"{place}-root"), "--out", str(out)]
        tables = [part for name in ("jobs", "users") for part in (f"--{name}", str(log / f"{name}.parquet"))]
        folders = [part for name in ("impressions", "truth") for part in (f"--{name}", str(log / name))]
        pipelines("run", *where, *tables, *folders, "--preset", "quick")
        metrics[place] = json.loads((out / "metrics.json").read_text())
        assert (out / "recommendations.parquet").stat().st_size > 0
        assert "<html" in (out / "report.html").read_text()[:2000].lower()
    # The same code, versions and threads on the same machine: equal to rounding.
    for slice_name in ("randomised", "logged"):
        for ranker in ("model", "baseline", "baseline_cos", "oracle"):
            for metric in ("auc", "map@1", "map@3"):
                inside = metrics["docker"][slice_name][ranker][metric]
                assert inside == pytest.approx(metrics["local"][slice_name][ranker][metric], abs=2e-3), (
                    slice_name,
                    ranker,
                    metric,
                )
