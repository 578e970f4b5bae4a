"""A cluster with one namespace, `team`, where an image has a small model server; and KServe, or not."""

import base64
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apiserver import Cluster, kinds, served
from tests.unit.cluster.test_access import act_as, shipped

ROOT = Path(__file__).parents[3]
IMAGE = "example/serve:1"
RULES = shipped("components/deploy/deployer.yaml", "Role")


@pytest.fixture(params=["deployment", "kserve"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cluster(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """This process has the rights that are shipped; KServe is there where the test is about it."""
    without = [] if kind == "kserve" else ["inferenceservices", "httproutes"]
    accounts = ["tritower-server"]
    with served(
        Cluster(namespaces=["team", "ingress"], without=without, accounts=accounts, environment={"PYTHONPATH": str(ROOT)})
    ) as one:
        one.programs[IMAGE] = [sys.executable, "-m", "tests.support.small_server"]
        act_as(one, RULES, tmp_path, monkeypatch)
        token = {"token": base64.b64encode(b"open").decode()}
        one.add(kinds.SECRET, {"metadata": {"name": "tritower-serving"}, "data": token}, namespace="team")
        yield one
