"""A served cluster and the official client for it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes import client, config

from tests.support.apiserver import Cluster, served

NAMESPACE = "team"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with served(Cluster(namespaces=[NAMESPACE], speed=20, bookmark_s=0.3)) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: Cluster, tmp_path: Path) -> Callable[[str], client.ApiClient]:
    """A client for a token; for the admin's without one."""

    def made(token: str = "") -> client.ApiClient:
        path = cluster.kubeconfig(tmp_path / f"kubeconfig{token}", token, namespace=NAMESPACE)
        return config.new_client_from_config(str(path))

    return made
