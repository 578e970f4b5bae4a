"""The entry point of the image `spark`: from the variables of an executor's pod to Java's command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tritower.cluster.entry import command
from tritower.errors import ConfigError, StepError

VARIABLES = {
    "JAVA_HOME": "/usr/lib/jvm/java-17",
    "SPARK_HOME": "/opt/spark",
    "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@10.0.0.9:7078",
    "SPARK_EXECUTOR_ID": "3",
    "SPARK_EXECUTOR_CORES": "2",
    "SPARK_EXECUTOR_MEMORY": "2048m",
    "SPARK_APPLICATION_ID": "spark-1f",
    "SPARK_EXECUTOR_POD_IP": "10.0.0.12",
    "SPARK_EXECUTOR_POD_NAME": "tritower-exec-3",
    "SPARK_RESOURCE_PROFILE_ID": "0",
}


def test_an_executors_command() -> None:
    options = {f"SPARK_JAVA_OPT_{number}": f"-Dn={number}" for number in (10, 2, 0)}
    assert command(["executor"], VARIABLES | options) == [
        "/usr/lib/jvm/java-17/bin/java",
        "-Dn=0", "-Dn=2", "-Dn=10",
        "-Xms2048m", "-Xmx2048m",
        "-cp", "/opt/spark/jars/*",
        "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend",
        "--driver-url", "spark://CoarseGrainedScheduler@10.0.0.9:7078",
        "--executor-id", "3",
        "--cores", "2",
        "--app-id", "spark-1f",
        "--hostname", "10.0.0.12",
        "--resourceProfileId", "0",
        "--podName", "tritower-exec-3",
    ]  # fmt: skip


def test_settings_and_classes_of_the_users_stand_around_sparks_own() -> None:
    words = command(["executor"], VARIABLES | {"SPARK_CONF_DIR": "/opt/spark/conf", "SPARK_CLASSPATH": "/extra/*"})
    assert words[words.index("-cp") + 1] == "/opt/spark/conf:/opt/spark/jars/*:/extra/*"


def test_a_drivers_command() -> None:
    given = ["driver", "--properties-file", "/opt/spark/conf/spark.properties", "local:///x.py", "a b"]
    assert command(given, VARIABLES | {"SPARK_DRIVER_BIND_ADDRESS": "10.0.0.9"}) == [
        "/opt/spark/bin/spark-submit", "--conf", "spark.driver.bindAddress=10.0.0.9", "--deploy-mode", "client",
        "--properties-file", "/opt/spark/conf/spark.properties", "local:///x.py", "a b",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in VARIABLES if name not in ("JAVA_HOME", "SPARK_HOME")])
def test_a_variable_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is not set"):
        command(["executor"], {key: value for key, value in VARIABLES.items() if key != name})


def test_an_image_without_java_says_so(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="there is no Java"):
        command(["executor"], {key: value for key, value in VARIABLES.items() if key != "JAVA_HOME"} | {"PATH": str(tmp_path)})


def _run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SPARK_", "JAVA_"))}
    done = [sys.executable, "-m", "tritower.cluster.entry", *words]
    return subprocess.run(done, env=own | variables, capture_output=True, text=True, check=False)


def test_any_other_command_runs_as_it_is() -> None:
    done = _run("sh", "-c", 'echo "$0 $1"; exit 3', "one", "two words")
    assert (done.returncode, done.stdout) == (3, "one two words\n")


def test_the_process_becomes_java(tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text('#!/bin/sh\necho "$@"\nexit 7\n')
    java.chmod(0o755)
    done = _run("executor", **VARIABLES | {"JAVA_HOME": str(tmp_path)})
    assert done.returncode == 7
    assert "-Xmx2048m" in done.stdout and "--executor-id 3" in done.stdout


def test_a_failure_is_a_line_and_no_traceback() -> None:
    done = _run("executor")
    assert done.returncode == 1
    assert done.stderr.startswith("ERROR ConfigError: SPARK_EXECUTOR_MEMORY is not set") and "Traceback" not in done.stderr
    done = _run("/no/such/program")
    assert done.returncode == 1
    assert "/no/such/program: No such file or directory" in done.stderr and "Traceback" not in done.stderr
