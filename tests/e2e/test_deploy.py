"""A bundle comes to serve on a real cluster, with KServe and without.

TRITOWER_E2E_BUNDLE    location of a bundle that pods open (the part `bundle` of a training makes one)
TRITOWER_E2E_SERVE     the image `serve` of this code

The namespace has `manifests/components/deploy` and the Secrets `tritower-store` and `tritower-serving`. What is made goes at
the end.
"""

import json
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tritower.deploy.__main__ import main

from tests.e2e.cluster import kubectl

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]
_NAMED = ("KUBECONFIG", "TRITOWER_E2E_BUNDLE", "TRITOWER_E2E_SERVE")
SPACE = os.environ.get("TRITOWER_E2E_NAMESPACE") or "kubeflow"
Run = Callable[..., tuple[int, str]]


@pytest.fixture(params=["deployment", "kserve"])
def run(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """The command, for a server of a name that nobody else has; its code and what it prints."""
    missing = [name for name in _NAMED if not os.environ.get(name)]
    if missing:
        pytest.skip(f"no cluster to deploy on: {', '.join(missing)} not set (tests/e2e/test_deploy.py)")
    if request.param == "kserve" and "inferenceservices" not in kubectl("api-resources", "-o", "name", namespace=SPACE):
        pytest.skip("the cluster has no KServe")
    name = f"e2e-{uuid.uuid4().hex[:6]}"

    def command(do: str, *words: str, **settings: Any) -> tuple[int, str]:
        known = {"name": name, "namespace": SPACE, "image": os.environ["TRITOWER_E2E_SERVE"], "replicas": 1, "cpu": "200m"}
        config = json.dumps({**known, "start_timeout_s": 300, **settings})
        bundle = ("--bundle", os.environ["TRITOWER_E2E_BUNDLE"], "--gate", "pass") if do == "apply" else ()
        code = main([do, *bundle, "--launcher", str(request.param), "--config", config, *words])
        said = capsys.readouterr()
        return code, said.out + said.err

    yield command
    for kind in ("inferenceservices", "deployments", "services", "poddisruptionbudgets", "configmaps"):
        if kind in kubectl("api-resources", "-o", "name", namespace=SPACE):
            kubectl("delete", kind, "-l", f"tritower.dev/server={name}", "--ignore-not-found", namespace=SPACE)


def test_a_version_comes_and_goes(run: Run) -> None:
    code, said = run("apply")
    assert code == 0 and "has all requests; 1 pod(s)" in said
    code, said = run("apply")
    assert code == 0 and "nothing to do" in said
    code, said = run("apply", environment={"ROUND": "2"})
    assert code == 0 and "has all requests" in said
    code, said = run("apply", environment={"ROUND": "3"}, canary_percent=50)
    assert code == 0 and "1 of 2 pods, 50 %" in said
    code, said = run("promote", environment={"ROUND": "3"}, canary_percent=50)
    assert code == 0 and "has all requests" in said
    code, said = run("rollback", "--why", "e2e")
    assert code == 0 and "has all requests" in said
    code, said = run("status")
    assert "what=rollback" in said and "why=e2e" in said


def test_a_version_that_is_not_fit_is_not_let_in(run: Run) -> None:
    assert run("apply")[0] == 0
    code, said = run("apply", questions=[{"query": "x", "candidates": ["no such job"]}], environment={"ROUND": "2"})
    assert code == 1 and "found no job" in said and "serves on, as before" in said
    code, said = run("apply", environment={"ROUND": "3"}, serve={"no_such_knob": 1})
    assert code == 1 and "it failed 2 time(s)" in said and "serves on, as before" in said
    code, said = run("apply", environment={"ROUND": "4"}, start_timeout_s=1)
    assert code == 1 and "0 of 1 pods are ready after 1 s" in said and "serves on, as before" in said
    code, said = run("apply", image="example.invalid/none:1", patience_s=20)
    assert code == 1 and "the image cannot be pulled" in said and "serves on, as before" in said


def test_what_was_deleted_by_hand_is_made_anew(run: Run) -> None:
    _, said = run("apply")
    name = said.split()[0]
    kind = (
        "inferenceservice"
        if f"{name}-predictor" in kubectl("get", "deployments", "-o", "name", namespace=SPACE)
        else "deployment"
    )
    kubectl("delete", kind, name, namespace=SPACE)
    code, said = run("apply")
    assert code == 0 and f"{name} " in said and "has all requests" in said
