"""Spark's executors as pods: what is looked at before, what Spark is given, what is wrong with them. Needs no Spark."""

import json
from pathlib import Path
from typing import Any

import pytest
from tritower.cluster.executors import RIGHTS, Executors
from tritower.engines.config import SparkConfig
from tritower.errors import ConfigError, LaunchError

from tests.support import family, spark_pods
from tests.support.apiserver import Cluster, kinds

Object = dict[str, Any]


@pytest.fixture
def step(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """This process is the step's pod, with the shipped Role and no other right."""
    token = cluster.token(spark_pods.rules(), namespace="team", account="pipeline-runner")
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "own", token, namespace="team")))
    monkeypatch.setenv("KFP_POD_NAME", spark_pods.DRIVER)
    spark_pods.start(cluster, ["sleep", "300"], tmp_path / "own", "http://127.0.0.1:1")
    family.wait_for(lambda: spark_pods.phase(cluster) == "Running", "the step's pod")
    return cluster


def _config(**more: Any) -> SparkConfig:
    return SparkConfig(master="kubernetes", executors=2, cores=3, memory="4Gi", cluster={"poll_s": 0.1, **more})


def test_what_spark_is_given(step: Cluster) -> None:
    toleration = {"key": "spot", "operator": "Exists"}
    executors = Executors(_config(node_selector={"pool": "big"}, tolerations=[toleration], image="example/other:2"))
    settings = dict(executors.settings)
    template = json.loads(Path(settings.pop("spark.kubernetes.executor.podTemplateFile").removeprefix("file://")).read_text())
    address = step.store.get(kinds.POD, "team", spark_pods.DRIVER)["status"]["podIP"]
    expected = {
        "spark.master": f"k8s://{step.url}",
        "spark.driver.host": address,
        "spark.kubernetes.driver.pod.name": spark_pods.DRIVER,
        "spark.kubernetes.namespace": "team",
        "spark.kubernetes.container.image": "example/other:2",
        "spark.executor.instances": "2",
        "spark.executor.cores": "3",
        "spark.executor.memory": "2048m",
        "spark.executor.memoryOverhead": "2048m",
        "spark.kubernetes.executor.request.cores": "3",
    }
    assert expected.items() <= settings.items()
    main, spec = template["spec"]["containers"][0], template["spec"]
    assert main["command"] == ["python3", "-m", "tritower.cluster.entry"]
    assert (spec["nodeSelector"], spec["tolerations"]) == ({"pool": "big"}, [toleration])
    assert template["metadata"]["labels"]["tritower.dev/spark-driver"] == spark_pods.DRIVER
    assert template["metadata"]["labels"]["tritower.dev/run"] == "run-7"
    secret = {one["name"]: one["valueFrom"]["secretKeyRef"]["name"] for one in main["env"] if "valueFrom" in one}
    assert secret["AWS_SECRET_ACCESS_KEY"] == "tritower-store"
    assert not any("key" in str(one.get("value", "")).lower() for one in main["env"])


def test_the_steps_own_image_is_the_default(step: Cluster) -> None:
    assert Executors(_config()).settings["spark.kubernetes.container.image"] == "example/spark:1"


@pytest.mark.parametrize("verb", RIGHTS[0][2])
def test_a_right_that_is_missing_is_named_with_its_line(
    step: Cluster, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rule,) = spark_pods.rules()
    fewer = [rule | {"verbs": [one for one in rule["verbs"] if one != verb]}]
    if verb == "get":  # the step's pod itself is read first
        fewer.append({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": [spark_pods.DRIVER]})
    token = step.token(fewer, namespace="team", account="pipeline-runner")
    monkeypatch.setenv("KUBECONFIG", str(step.kubeconfig(tmp_path / "fewer", token, namespace="team")))
    with pytest.raises(LaunchError, match=rf"may not {verb} pods.*kubectl -n team create role .*--verb={verb} --resource=pods"):
        Executors(_config())


def test_a_quota_that_leaves_no_room_is_told_before_anything_is_made(step: Cluster) -> None:
    step.add(kinds.QUOTA, {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "1"}}}, namespace="team")
    with pytest.raises(LaunchError, match=r"an executor cannot be made: .*exceeded quota: small.*Raise the quota"):
        Executors(_config())
    assert spark_pods.executors(step) == []


def test_an_account_that_is_missing_is_told_before_anything_is_made(step: Cluster) -> None:
    with pytest.raises(LaunchError, match=r'an executor cannot be made: .*serviceaccount "other" not found'):
        Executors(_config(service_account="other"))


def test_a_restricted_namespace_takes_the_executors(step: Cluster) -> None:
    home = step.store.get(kinds.NAMESPACE, "", "team")
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    step.store.edit(kinds.NAMESPACE, home, lambda one: one["metadata"]["labels"].update(restricted))
    Executors(_config())
    with pytest.raises(LaunchError, match="violates PodSecurity"):
        Executors(_config(capabilities=["IPC_LOCK"], run_as_user=0))


def test_a_process_in_no_pod_cannot_own_executors(cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match=r"this process runs in no pod"):
        Executors(SparkConfig(master="kubernetes", cluster={"image": "example/spark:1"}))


def test_a_heap_below_sparks_least_is_refused(step: Cluster) -> None:
    with pytest.raises(ConfigError, match=r"spark.memory is '800Mi'"):
        Executors(SparkConfig(master="kubernetes", memory="800Mi"))


def _make(step: Cluster, executors: Executors, name: str, command: list[str], **spec: Any) -> None:
    template = json.loads(
        Path(executors.settings["spark.kubernetes.executor.podTemplateFile"].removeprefix("file://")).read_text()
    )
    main = template["spec"]["containers"][0] | {"command": command}
    pod = template | {"metadata": template["metadata"] | {"name": name}}
    pod["spec"] = template["spec"] | {"restartPolicy": "Never", "containers": [main]} | spec
    executors.server.call("POST", "/api/v1/namespaces/team/pods", body=pod)


def test_an_image_that_is_missing_and_a_node_that_is_not_there_are_troubles(step: Cluster) -> None:
    step.images["example/spark:1"] = "missing"
    executors = Executors(_config(patience_s=20.0, start_timeout_s=50.0))
    _make(step, executors, "one", ["sleep", "60"])
    _make(step, executors, "two", ["sleep", "60"], nodeSelector={"pool": "none"})
    family.wait_for(lambda: len(executors.troubles(executors.pods())) == 2, "both troubles")
    found = {one.key: one for one in executors.troubles(executors.pods())}
    image, node = found["image", "one"], found["unplaced", "two"]
    assert "the image cannot be pulled" in str(image.error) and "not found" in str(image.error) and image.limit_s == 20.0
    assert "no node takes the pod" in str(node.error) and node.limit_s == 50.0


def test_executors_that_fail_again_and_again_are_the_end(step: Cluster) -> None:
    executors = Executors(_config(restarts=1))
    for number in range(2):
        _make(step, executors, f"dead-{number}", ["sh", "-c", "echo no space for it >&2; exit 9"])
    family.wait_for(lambda: len(spark_pods.executors(step, "Failed")) == 2, "two failed executors")
    deaths = next(one for one in executors.troubles(executors.pods()) if one.key[0] == "deaths")
    assert "2 executors failed, the last: exit code 9" in str(deaths.error) and deaths.limit_s == 0.0


def test_close_ends_the_executors_and_nothing_else(step: Cluster) -> None:
    executors = Executors(_config())
    _make(step, executors, "one", ["sleep", "60"])
    family.wait_for(lambda: spark_pods.executors(step, "Running"), "the executor")
    executors.close()
    family.wait_for(lambda: not spark_pods.executors(step), "its end")
    assert spark_pods.phase(step) == "Running"
