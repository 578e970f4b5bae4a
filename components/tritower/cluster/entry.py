"""The entry point of the image `spark`: what Kubernetes' pods of Spark are started with becomes a command of Java's.

    python3 -m tritower.cluster.entry executor          an executor, from the variables that the driver gave its pod
    python3 -m tritower.cluster.entry driver WORDS...   a driver of the Spark operator or of spark-submit in cluster mode
    python3 -m tritower.cluster.entry COMMAND...        any other command as it is

The names of the variables and of the options are Spark's own (`BasicExecutorFeatureStep` and `KubernetesExecutorBackend` of its
module for Kubernetes).
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from tritower import logs
from tritower.engines.session import require_user_name
from tritower.errors import ConfigError, StepError, TritowerError

BACKEND = "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
_JAVA_OPTION = "SPARK_JAVA_OPT_"
_OPTIONS = {
    "--driver-url": "SPARK_DRIVER_URL",
    "--executor-id": "SPARK_EXECUTOR_ID",
    "--cores": "SPARK_EXECUTOR_CORES",
    "--app-id": "SPARK_APPLICATION_ID",
    "--hostname": "SPARK_EXECUTOR_POD_IP",
    "--resourceProfileId": "SPARK_RESOURCE_PROFILE_ID",
    "--podName": "SPARK_EXECUTOR_POD_NAME",
}


def command(words: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """The command to become.

    Args:
        words: of the container: `executor`, `driver` and its words, or a command.
        variables: the container's environment.

    Raises:
        ConfigError: no words, or a variable is missing.
        StepError: there is no Java.
    """
    if not words:
        raise ConfigError("no command", where="the pod", remedy="Give executor, driver or a command.")
    if words[0] == "executor":
        return _executor(variables)
    if words[0] == "driver":
        address = _given(variables, "SPARK_DRIVER_BIND_ADDRESS")
        submit = str(Path(home(variables)) / "bin" / "spark-submit")
        return [submit, "--conf", f"spark.driver.bindAddress={address}", "--deploy-mode", "client", *words[1:]]
    return list(words)


def home(variables: Mapping[str, str]) -> str:
    """Where Spark lies: SPARK_HOME, else the installed package pyspark."""
    if variables.get("SPARK_HOME"):
        return variables["SPARK_HOME"]
    found = find_spec("pyspark")
    if found is None or not found.origin:
        raise StepError("Spark is not installed", where="the image", remedy="Run tritower's image `spark`.")
    return str(Path(found.origin).parent)


def _executor(variables: Mapping[str, str]) -> list[str]:
    memory = _given(variables, "SPARK_EXECUTOR_MEMORY")
    numbered = {int(name[len(_JAVA_OPTION) :]): name for name in variables if name.startswith(_JAVA_OPTION)}
    options = [variables[numbered[number]] for number in sorted(numbered)]
    places = [variables.get("SPARK_CONF_DIR", ""), f"{home(variables)}/jars/*", variables.get("SPARK_CLASSPATH", "")]
    given = [word for option, name in _OPTIONS.items() for word in (option, _given(variables, name))]
    classes = ":".join(place for place in places if place)
    return [_java(variables), *options, f"-Xms{memory}", f"-Xmx{memory}", "-cp", classes, BACKEND, *given]


def _java(variables: Mapping[str, str]) -> str:
    own = variables.get("JAVA_HOME", "")
    found = f"{own}/bin/java" if own else shutil.which("java", path=variables.get("PATH", ""))
    if not found:
        raise StepError("there is no Java", where="the image", remedy="Run tritower's image `spark`, which has Java 17.")
    return found


def _given(variables: Mapping[str, str], name: str) -> str:
    value = variables.get(name, "")
    if not value:
        raise ConfigError(f"{name} is not set", where="the pod", remedy="Spark's driver sets it in the pods that it makes.")
    return value


def main(words: Sequence[str]) -> int:
    """Become the command; 1 with a line that says why it cannot be."""
    try:
        found = command(words, os.environ)
        if words[0] in ("executor", "driver"):
            require_user_name()
        if words[0] == "driver":
            os.environ.setdefault("SPARK_HOME", home(os.environ))
        os.execvp(found[0], found)  # noqa: S606 - a list of words, no shell
    except TritowerError as error:
        print(*logs.lines(error), sep="\n", file=sys.stderr, flush=True)
    except OSError as error:
        print(f"error: {found[0]}: {error.strerror}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
