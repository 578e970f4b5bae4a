"""A Kubeflow Pipelines backend's API, for the tests that submit to it, wait for it or ask it."""

from collections.abc import Iterator

import pytest

from tests.support.kfp_api import Api, served


@pytest.fixture
def api() -> Iterator[Api]:
    """A server of its own for each test, empty; what is not as the published OpenAPI says fails the test."""
    with served(Api()) as server:
        yield server
    assert server.faults == []
