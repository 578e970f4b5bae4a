"""Images pushed to a registry, and YAML that names them by digest. The registry is Debian's docker-registry, on loopback."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tritower import processes

from tests.support.family import wait_for

ROOT = Path(__file__).parents[2]
PREFIX, TAG = "tritower-publish-test", "7.0-abc"
pytestmark = pytest.mark.docker
CONFIG = "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    if not shutil.which("docker-registry"):
        pytest.skip("NOT RUN: it needs a registry: apt-get install docker-registry")
    port = processes.free_port()
    (tmp_path / "config.yml").write_text(CONFIG.format(folder=tmp_path / "registry", port=port))
    with (tmp_path / "log").open("w") as log:
        served = subprocess.Popen(["docker-registry", "serve", tmp_path / "config.yml"], stdout=log, stderr=log)
        try:
            wait_for(lambda: answers(f"http://127.0.0.1:{port}/v2/"), "the registry answers")
            yield f"127.0.0.1:{port}"
        finally:
            served.terminate()
            served.wait()


@pytest.fixture
def images(registry: str) -> Iterator[list[str]]:
    """Two images of a file each; they and what the registry's name adds are removed."""
    made = []
    for name in ("base", "train"):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(name))
        made.append(f"{PREFIX}/{name}:{TAG}")
        subprocess.run(["docker", "import", "-", made[-1]], input=content.getvalue(), check=True, stdout=subprocess.DEVNULL)
    yield made
    there = [f"{registry}/team/{name}:{TAG}" for name in ("base", "train")]
    subprocess.run(["docker", "rmi", "--force", *made, *there], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def publish(registry: str, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    own = {"TRITOWER_IMAGE_PREFIX": PREFIX, "TRITOWER_IMAGE_TAG": TAG}
    command = [sys.executable, ROOT / "images/publish.py", "--out", str(out), registry, *more]
    return subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)


def test_the_compiled_pipeline_names_what_was_pushed_by_digest(registry: str, images: list[str], tmp_path: Path) -> None:
    done = publish(f"{registry}/team", tmp_path / "published")
    assert done.returncode == 0, done.stdout + done.stderr
    names = json.loads((tmp_path / "published/images.json").read_text())
    for image, name in names.items():
        repository, _, digest = name.partition("@")
        assert repository == f"{registry}/team/{image}:{TAG}"
        there = urllib.request.Request(f"http://{registry}/v2/team/{image}/manifests/{TAG}")
        there.add_header("Accept", "application/vnd.docker.distribution.manifest.v2+json")
        with urllib.request.urlopen(there) as answer:
            assert answer.headers["Docker-Content-Digest"] == digest
    spec = next(yaml.safe_load_all((tmp_path / "published/kfp/training.yaml").read_text()))
    used = {one["container"]["image"] for one in spec["deploymentSpec"]["executors"].values() if "container" in one}
    assert used == set(names.values())
    alone = (tmp_path / "published/components/score/component.yaml").read_text()
    assert names["train"] in alone
    subprocess.run(["docker", "pull", "--quiet", names["base"].replace(f":{TAG}@", "@")], check=True, capture_output=True)


def test_nothing_is_written_where_an_image_is_missing_or_the_registry_refuses(
    registry: str, images: list[str], tmp_path: Path
) -> None:
    done = publish(f"{registry}/team", tmp_path / "published", "base", "serve")
    assert done.returncode == 1
    assert f"there is no image {PREFIX}/serve:{TAG} on this machine: run `make images`" in done.stderr
    done = publish("https://registry.example.org", tmp_path / "published")
    assert "give host and path without https://" in done.stderr
    done = publish(f"127.0.0.1:{processes.free_port()}/team", tmp_path / "published")
    assert done.returncode == 1
    assert "docker ended with 1" in done.stderr
    assert not (tmp_path / "published").exists()
