"""manifests/kfp: the patch that lets killed steps run again, merged into what Kubeflow Pipelines 2.17.0 ships."""

import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests/kfp"
SHIPPED = ROOT / "tests/data/kfp/workflow-controller-configmap.yaml"


def merged(base: Any, patch: Any) -> Any:
    """A strategic merge as it is for a ConfigMap: mappings key by key, everything else replaced."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return base | {key: merged(base.get(key), value) for key, value in patch.items()}
    return patch


def defaults(configmap: dict[str, Any]) -> dict[str, Any]:
    """The workflows' defaults, which are YAML in a text."""
    found: dict[str, Any] = yaml.safe_load(configmap["data"]["workflowDefaults"])
    return found


def test_the_patch_changes_the_retries_and_nothing_else():
    shipped, patch = (yaml.safe_load(file.read_text()) for file in (SHIPPED, MANIFESTS / "retries/retry-what-was-killed.yaml"))
    assert (patch["kind"], patch["metadata"]["name"]) == (shipped["kind"], shipped["metadata"]["name"])
    patched = merged(shipped, patch)
    assert {key for key in shipped["data"] if patched["data"][key] != shipped["data"][key]} == {"workflowDefaults"}
    before, after = defaults(shipped), defaults(patched)
    old, new = (one["spec"]["templateDefaults"].pop("retryStrategy") for one in (before, after))
    assert before == after
    assert new.pop("limit") == old.pop("limit")
    codes = [str(128 + number) for number in (signal.SIGKILL, signal.SIGTERM)]
    said = f"lastRetry.status == 'Error' || lastRetry.exitCode in {codes}"
    assert (old, new) == ({"retryPolicy": "OnError"}, {"retryPolicy": "Always", "expression": said})


def test_kustomize_merges_the_component(tmp_path: Path):
    command = next((one for one in (["kustomize", "build"], ["kubectl", "kustomize"]) if shutil.which(one[0])), None)
    if not command:
        pytest.skip("neither kustomize nor kubectl is installed")
    shutil.copytree(MANIFESTS, tmp_path / "kfp")
    shutil.copy(SHIPPED, tmp_path / "kfp/overlay/shipped.yaml")
    overlay = tmp_path / "kfp/overlay/kustomization.yaml"
    local = yaml.safe_load(overlay.read_text()) | {"resources": ["shipped.yaml"], "namespace": "kubeflow"}
    overlay.write_text(yaml.safe_dump(local))
    done = subprocess.run([*command, str(overlay.parent)], check=True, capture_output=True, text=True)
    patch = yaml.safe_load((MANIFESTS / "retries/retry-what-was-killed.yaml").read_text())
    expected = merged(yaml.safe_load(SHIPPED.read_text()), patch)
    expected["metadata"]["namespace"] = "kubeflow"
    assert yaml.safe_load(done.stdout) == expected


def test_the_overlay_is_of_the_version_that_the_patch_is_written_for():
    overlay = yaml.safe_load((MANIFESTS / "overlay/kustomization.yaml").read_text())
    assert overlay["components"] == ["../retries"] and all(one.endswith("?ref=2.17.0") for one in overlay["resources"])
    assert "2.17.0" in SHIPPED.read_text().splitlines()[0]
