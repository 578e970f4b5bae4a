"""A cluster with one namespace, `team`, and the store's Secret in it; its pods reach the S3 server as this process does."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritower.cluster.katib import INJECTION

from tests.support.apiserver import Cluster, Node, kinds, served
from tests.support.s3 import bare, endpoint, s3  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[3]


@pytest.fixture
def cluster(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:  # noqa: F811
    """This process has all rights, and so have the pods."""
    kubeconfig = tmp_path / "kubeconfig"
    environment = {"PYTHONPATH": f"{ROOT / 'components'}:{ROOT}", "KUBECONFIG": str(kubeconfig), "AWS_REGION": "us-east-1"}
    with served(
        Cluster(
            namespaces={"team": {INJECTION: "enabled"}},
            nodes=[Node(name="large", gpus=2), Node(name="small")],
            environment=environment,
        )
    ) as one:
        one.kubeconfig(kubeconfig, namespace="team")
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        one.add(kinds.SECRET, keys("key"), namespace="team")
        yield one


def keys(accesskey: str) -> dict[str, Any]:
    """The store's Secret, for the store that this process uses."""
    values = {"endpoint": os.environ["TRITOWER_S3_ENDPOINT"], "accesskey": accesskey, "secretkey": "secret"}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"metadata": {"name": "tritower-store"}, "data": data}
