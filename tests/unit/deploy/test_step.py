"""The gate, what is read of a bundle, YAML for GitOps, the command, and a server that is asked directly."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from tritower import storage
from tritower.config import from_dict
from tritower.deploy import __main__ as command
from tritower.deploy import asking, record, release, step
from tritower.deploy.component import deploy
from tritower.deploy.config import DeployConfig
from tritower.errors import ArtifactError, ConfigError, LaunchError

from tests.support.apiserver import schema
from tests.support.s3 import bare, endpoint, s3  # noqa: F401 - fixtures

PARTS = {"ranker": {"sha256": "11"}, "state": {"sha256": "22"}}


@pytest.fixture
def bundle(s3: str, tmp_path: Path) -> str:  # noqa: F811
    """Location of what a deployer reads of a bundle."""
    storage.write_json(tmp_path / "bundle" / "bundle.json", {"format": 1, "parts": PARTS})
    storage.upload_tree(str(tmp_path / "bundle"), f"{s3}/bundle")
    return f"{s3}/bundle"


@pytest.mark.parametrize(
    ("gate", "given", "why"),
    [
        ("hold", {}, "the gate holds: nothing is deployed"),
        ("", {}, "no gate has judged this bundle"),
        ("yes", {}, "the gate says 'yes'"),
        ("hold", {"force": True, "by": "me"}, "says who forces it and why"),
        ("hold", {"force": True, "why": "demo"}, "says who forces it and why"),
    ],
)
def test_what_the_gate_holds_is_refused_unless_somebody_answers_for_it(gate: str, given: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        step.check_gate(gate, **{"force": False, "by": "", "why": ""} | given)
    step.check_gate("hold", force=True, by="me", why="the demo")


def test_a_run_on_this_machine_deploys_nothing_and_says_so() -> None:
    assert deploy.python_func(bundle="/nowhere", gate="pass") == "nothing is deployed: the launcher is none"
    said = deploy.python_func(bundle="s3://nowhere/x", gate="hold", config={"launcher": "kserve"})
    assert said == "the gate holds: what serves serves on"


def test_a_bundles_version_is_the_one_its_server_says(bundle: str) -> None:
    from tritower.serving import bundle as format_

    found = release.read(bundle)
    parts = {name: format_.Part(sha256=one["sha256"], files={}, claims={}) for name, one in PARTS.items()}
    assert found.version == format_._identity(parts) and found.questions == ({"query": "", "k": 3},)
    assert release.read(bundle, [{"query": "cook"}]).questions == ({"query": "cook"},)


def test_a_bundle_that_no_pod_can_open_and_one_that_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pod can open it"):
        release.read(str(tmp_path))
    with pytest.raises(ArtifactError, match="damaged"):
        release.version({"parts": {"ranker": {}}})


@pytest.mark.parametrize("launcher", ["kserve", "deployment", "serverless"])
def test_yaml_for_gitops(bundle: str, tmp_path: Path, launcher: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.dumps({"namespace": "team", "image": "registry.example/serve:1", "canary_percent": 10, "gateway": "entrance"})
    folder = tmp_path / "made"
    words = ["apply", "--bundle", bundle, "--config", config, "--launcher", launcher, "--manifests-only", str(folder)]
    assert command.main(words) == 0
    names = {Path(line).name for line in capsys.readouterr().out.splitlines()}
    assert names == {path.name for path in folder.iterdir()}
    items = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in folder.iterdir()]
    for item in items:
        if item["kind"] != "HTTPRoute":
            assert not schema.problems(item)
    kinds = {item["kind"] for item in items}
    if launcher == "serverless":
        assert kinds == {"InferenceService"} and items[0]["spec"]["predictor"]["canaryTrafficPercent"] == 10
    else:
        first = "InferenceService" if launcher == "kserve" else "Deployment"
        assert {first, "Service", "PodDisruptionBudget", "HTTPRoute"} == kinds


def test_the_command_says_what_is_wrong_in_lines(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["apply", "--bundle", bundle, "--gate", "hold"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "ERROR ConfigError: the gate holds: nothing is deployed",
        "  where: gate",
        "  remedy: Look at the report; to deploy it all the same give force, by and why.",
    ]


class Guarded(BaseHTTPRequestHandler):
    """Asks for a token, and answers a search; the body tells what else."""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self.answer(200, b'{"versions": ["v"]}' if self.path == "/v2/models/tritower" else b"no JSON")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer open":
            return self.answer(401, b"{}")
        job = {"job_id": "j", "rank": 1, "score": 0.5}
        return self.answer(200, json.dumps({"versions": {"bundle": "v"}, "jobs": [job]}).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_server_is_asked_directly_with_its_token() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        asking.golden(asking.Direct(address, token="open"), "v", [{"query": ""}])
        asking.answers_as(asking.Direct(address), "v", 60)
        with pytest.raises(LaunchError, match=r"asks for a token.*TRITOWER_SERVING_TOKEN"):
            asking.golden(asking.Direct(address), "v", [{"query": ""}])
        with pytest.raises(LaunchError, match="no JSON"):
            asking.Direct(address).ask("/other")
        server.shutdown()
    with pytest.raises(LaunchError, match="there is no answer"):
        asking.Direct(address, timeout_s=1).ask("/")


GOOD = {"versions": {"bundle": "v"}, "jobs": [{"rank": 1, "score": 0.5}, {"rank": 2, "score": 0.7}]}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"versions": {"bundle": "w"}}, "was answered by version w, not by v"),
        ({"versions": {}}, "has an answer that is none: KeyError('bundle')"),
        ({"jobs": []}, "found no job"),
        ({"jobs": [{"rank": 1, "score": 1.5}]}, "has scores that are no probabilities: [1.5]"),
        ({"jobs": [{"rank": 2, "score": 0.5}]}, "has ranks out of order: [2]"),
        ({"jobs": [{"rank": 1, "score": "high"}]}, "has an answer that is none"),
    ],
)
def test_what_a_golden_answer_must_have(change: dict[str, Any], why: str) -> None:
    found = asking.fault(GOOD | change, "v")
    assert found.startswith(why) and bool(found) == bool(why)


def test_a_record_that_was_damaged_by_hand_says_how_to_go_on() -> None:
    config = from_dict(DeployConfig, {"namespace": "team"})
    whole = record.config_map(record.Record(stable="", seen="7").told(what="deploy", by="me"), config)
    assert record.of(whole) == record.Record(stable="", seen="7").told(what="deploy", by="me")
    whole["data"]["state.json"] = "{"
    with pytest.raises(ArtifactError, match=r"damaged.*kubectl delete configmap tritower-rollout"):
        record.of(whole)
