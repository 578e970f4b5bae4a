"""Spark's executors as pods of this cluster, without an operator: the pod of this process is the driver.

Spark makes the pods from a template of ours; they belong to the driver's pod and go with it. What Spark does not do is here:
look first whether it may, say why no executor comes, and end them at once on SIGTERM.
"""

import contextlib
import json
import logging
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tritower import config as knobs
from tritower.cluster import here, names, pods, preflight, state, surroundings
from tritower.cluster.api import Api, Refused, core
from tritower.cluster.config import ClusterConfig
from tritower.cluster.kind import Right
from tritower.cluster.quantities import value
from tritower.cluster.stopping import Stopping
from tritower.engines.config import SparkConfig
from tritower.engines.session import mark
from tritower.errors import ConfigError, JobFailed, TritowerError
from tritower.jobs import Job

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)
RIGHTS: tuple[Right, ...] = (("", "pods", ("create", "get", "list", "watch", "patch", "delete", "deletecollection")),)
"""What the driver's service account may do in the executors' namespace. No ConfigMap, Service or claim is made."""
DRIVER = "tritower.dev/spark-driver"
"""Label of the executors: the driver's pod."""
CONTAINER, ENTRY = "spark", ("python3", "-m", "tritower.cluster.entry")
_SMALLEST_HEAP_MIB = 450
_PORTS = {"spark.driver.port": "7078", "spark.driver.blockManager.port": "7079", "spark.blockManager.port": "7079"}


class Executors:
    """The executors of one session: `settings` make it, `follow` looks after it, `close` ends them.

    Args:
        config: how many, and how large.

    Raises:
        ConfigError: a knob is wrong, or this process runs in no pod.
        LaunchError: something is missing on the cluster; the remedy has a line of kubectl for each.
    """

    def __init__(self, config: SparkConfig) -> None:
        own = {"memory": config.memory, "shared_memory": "", **config.cluster}
        wanted = knobs.from_dict(ClusterConfig, own, where="spark.cluster")
        self.server = Api(wanted.api_patience_s)
        place = here.find(self.server)
        self.config, self.spark, self.place = here.filled(wanted, place), config, place
        self.heap_mib = _heap(self.config.memory)
        self._driver, self._address = _driver(place)
        self.selector = f"{DRIVER}={names.label(self._driver)}"
        self._template = self._pod()
        self._held = contextlib.ExitStack()
        self._check()
        self.settings = self._settings()

    @property
    def slots(self) -> int:
        """Tasks that run at once."""
        return self.spark.executors * self.spark.cores

    def hold(self) -> None:
        """From now on SIGTERM ends them before anything else."""
        self._held.enter_context(_Ending(Api(), [self._path(self.selector)]))

    def follow(self, session: "SparkSession") -> None:
        """Look after the executors of a session from now on."""
        follower = _Follower(self, session)
        follower.start()
        self._held.callback(follower.stop)

    def close(self) -> None:
        """End the executors that are still there."""
        self._held.close()
        with contextlib.suppress(TritowerError):  # they end with the driver, too
            self.server.delete(self._path(self.selector), patience_s=10)

    def pods(self) -> list[dict[str, Any]]:
        """The executors' pods as they are now."""
        found: list[dict[str, Any]] = self.server.get(self._path(self.selector))["items"]
        return found

    def troubles(self, found: list[dict[str, Any]]) -> list[state.Trouble]:
        """What is wrong with the pods."""
        dead = [pod for pod in found if state.phase(pod) == "Failed" and not pod["status"].get("reason")]
        living = [pod for pod in found if state.phase(pod) in ("Pending", "Running")]
        troubles = []
        if len(dead) > self.config.restarts:
            dead.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
            name = str(dead[-1]["metadata"]["name"])
            problem = f"{len(dead)} executors failed, the last: {state.death(dead[-1])}"
            remedy = "Raise spark.memory where memory ran out."
            troubles.append(state.trouble(("deaths", ""), problem, f"pod {name}", remedy, 0.0))
        troubles += [one for one in state.troubles(living, self.config, {}) if one.key[0] in _WAITING]
        if len(living) < self.spark.executors and (refused := self._refusal()):
            remedy = "Raise the quota, or ask for fewer or smaller executors."
            problem = f"a pod cannot be made: {refused}"
            troubles.append(state.trouble(("refused", ""), problem, "the executors", remedy, self.config.patience_s))
        return troubles

    def _check(self) -> None:
        missing = preflight.lacking(self.server, self.config, RIGHTS, self.place.account)
        missing += [*preflight.no_secret(self.server, self.config), *surroundings.missing(self.server, self.config)]
        if not missing and (refused := self._refusal()):
            remedy = "Raise the quota, ask for less, or correct the settings that it names."
            missing = [(f"an executor cannot be made: {refused}", remedy)]
        preflight.refuse(self.config, missing)

    def _refusal(self) -> str:
        """Why the API server does not take an executor, asked without making one; Spark's own log is the only other place."""
        memory, cores = f"{round(value(self.config.memory) / 2**20)}Mi", self.config.cpu or str(self.spark.cores)
        main = self._template["spec"]["containers"][0]
        resources = {"requests": {"memory": memory, "cpu": cores}, "limits": {"memory": memory}}
        spec = {**self._template["spec"], "restartPolicy": "Never", "containers": [{**main, "resources": resources}]}
        metadata = {**self._template["metadata"], "name": f"{names.label(self._driver)[:50]}-probe".lower()}
        try:
            path = core(self.config.namespace, "pods")
            self.server.call("POST", path, query={"dryRun": "All"}, body={**self._template, "metadata": metadata, "spec": spec})
        except Refused as error:
            if error.status not in (400, 403, 404, 422):
                raise
            return str(error.answer.get("message", "")) or error.problem
        return ""

    def _path(self, selector: str) -> str:
        return f"{core(self.config.namespace, 'pods')}?labelSelector={quote(selector)}"

    def _pod(self) -> dict[str, Any]:
        """What Spark starts from: it adds name, owner, memory, cores, the executor's variables and a place for shuffles."""
        job = Job(name="spark-executor", module=ENTRY[-1])
        made = pods.template(job, self.config, name=self._driver, container=CONTAINER, command=list(ENTRY))
        made["metadata"]["labels"] |= {DRIVER: names.label(self._driver)}
        if self.place.run:
            made["metadata"]["labels"] |= {names.RUN: names.label(self.place.run)}
        main = made["spec"]["containers"][0]
        main["terminationMessagePolicy"] = "FallbackToLogsOnError"
        main.pop("resources", None)
        return {"apiVersion": "v1", "kind": "Pod", **made}

    def _settings(self) -> dict[str, str]:
        folder = Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="spark-executors-")))
        template = folder / "template.json"
        template.write_text(json.dumps(self._template), encoding="utf-8")
        whole = round(value(self.config.memory) / 2**20)
        kubernetes = {
            "namespace": self.config.namespace,
            "container.image": self.config.image,
            "container.image.pullPolicy": self.config.image_pull_policy,
            "driver.pod.name": self._driver,
            "executor.podTemplateFile": f"file://{template}",
            "executor.podTemplateContainerName": CONTAINER,
            "executor.request.cores": self.config.cpu or str(self.spark.cores),
            "authenticate.executor.serviceAccountName": self.config.service_account,
            # What failed is left, so that its reason can be read; `close` and the owner take it along.
            "executor.deleteOnTermination": "false",
            "executor.apiPollingInterval": f"{max(1, round(self.config.poll_s))}s",
            # Each of these would need rights to things that are not used.
            "executor.disableConfigMap": "true",
            "driver.service.deleteOnTermination": "false",
            "driver.ownPersistentVolumeClaim": "false",
            "driver.reusePersistentVolumeClaim": "false",
            "driver.waitToReusePersistentVolumeClaim": "false",
        }
        return _PORTS | {f"spark.kubernetes.{key}": text for key, text in kubernetes.items()} | {
            "spark.master": f"k8s://{self.server.host}",
            "spark.driver.host": self._address,
            "spark.executor.instances": str(self.spark.executors),
            "spark.executor.cores": str(self.spark.cores),
            "spark.executor.memory": f"{self.heap_mib}m",
            "spark.executor.memoryOverhead": f"{whole - self.heap_mib}m",
            # The follower counts failures and knows their reasons; Spark would end Java without a word.
            "spark.executor.maxNumFailures": "1000000",
        }  # fmt: skip


_WAITING = ("image", "settings", "unplaced", "start")


class _Ending(Stopping):
    """SIGTERM: Java ends first, so that it makes no new executors, then the executors go."""

    def _stop(self, *given: object) -> None:
        from pyspark import SparkContext

        java = getattr(SparkContext._gateway, "proc", None)
        if java:
            with contextlib.suppress(OSError):
                os.kill(java.pid, signal.SIGKILL)
        super()._stop(*given)


class _Follower(threading.Thread):
    """Ends the session's work when no executor comes, or too many fail, with the reason."""

    def __init__(self, executors: Executors, session: "SparkSession") -> None:
        super().__init__(daemon=True, name="spark-executors")
        self.executors, self.config = executors, executors.config
        self._context = session.sparkContext
        self._over = threading.Event()
        self._since: dict[tuple[str, str], float] = {}
        self._without = self._began = time.monotonic()
        self._registered = -1

    def stop(self) -> None:
        """Look no further."""
        self._over.set()
        self.join(10)

    def run(self) -> None:
        while not self._over.wait(self.config.poll_s):
            try:
                error = self.look()
            except TritowerError as failed:  # the API server is away for longer than the patience with it
                logger.warning("%s", failed)
                continue
            except Exception as failed:  # noqa: BLE001 - Java is gone; who waits for it says why
                logger.debug("%s", failed)
                return
            if error:
                self._end(error)

    def look(self) -> TritowerError | None:
        """What the work is to end with, if it is."""
        now, registered = time.monotonic(), self._executors()
        if registered != self._registered:
            message = "executors: %d of %d are there after %.0f s"
            logger.info(message, registered, self.executors.spark.executors, now - self._began)
            self._registered, self._without = registered, now
        found = self.executors.pods()
        troubles = {one.key: one for one in self.executors.troubles(found)}
        for key in troubles.keys() - self._since.keys():
            logger.warning("%s", troubles[key].error)
        self._since = {key: self._since.get(key, now) for key in troubles}
        due = [one for one in troubles.values() if now - self._since[one.key] >= one.limit_s]
        deaths = [one.error for one in due if one.key[0] == "deaths"]
        if deaths or registered:
            return deaths[0] if deaths else None
        if due:
            return due[0].error
        if now - self._without < self.config.start_timeout_s:
            return None
        known = next(iter(troubles.values()), None)
        return known.error if known else self._unreached(found)

    def _unreached(self, found: list[dict[str, Any]]) -> JobFailed:
        how = state.summary(found, self.executors.spark.executors)
        problem = f"no executor has come to the driver in {self.config.start_timeout_s:g} s ({how})"
        ports = " and ".join(sorted(set(_PORTS.values())))
        remedy = f"Look at the executors' logs. Do NetworkPolicies let them reach the driver's ports {ports}?"
        return JobFailed(problem, where=f"pods {self.executors.selector}", remedy=remedy)

    def _executors(self) -> int:
        """Those that Spark knows; the driver is one of them."""
        return len(self._context._jsc.sc().statusTracker().getExecutorInfos()) - 1

    def _end(self, error: TritowerError) -> None:
        """Each query that runs ends with the error: it travels as that of a kernel does."""
        for job in self._context.statusTracker().getActiveJobsIds():
            self._context._jsc.sc().cancelJob(job, mark(error))


def _heap(memory: str) -> int:
    """MiB of Java's heap in a pod."""
    heap = int(value(memory) / 2**20 / 2)
    knobs.check(heap >= _SMALLEST_HEAP_MIB, "spark.memory", memory, f"of at least {2 * _SMALLEST_HEAP_MIB}Mi")
    return heap


def _driver(place: here.Here) -> tuple[str, str]:
    """Name and address of this process's pod."""
    name = str(place.pod.get("metadata", {}).get("name", ""))
    address = str(place.pod.get("status", {}).get("podIP", ""))
    if not name or not address:
        remedy = "Run the step on a KFP backend, or leave spark.master out."
        raise ConfigError("this process runs in no pod, which executors could belong to", where="spark.master", remedy=remedy)
    return name, address
