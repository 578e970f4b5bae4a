"""The launcher `pytorchjob`: creates or adopts a PyTorchJob, follows it to its end, and leaves nothing running."""

import contextlib
import json
import logging
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tritower import config as knobs
from tritower import logs, storage
from tritower.cluster import heartbeat, here, names, pod_log, pods, preflight, pytorchjob, state
from tritower.cluster.api import Api, Refused, core, custom
from tritower.cluster.config import ClusterConfig
from tritower.cluster.following import Following
from tritower.cluster.heartbeat import Heartbeat
from tritower.cluster.stopping import Stopping
from tritower.errors import ConfigError, JobFailed, LaunchError, StorageError, TritowerError
from tritower.jobs import Job

logger = logging.getLogger(__name__)
_GONE_S = 60.0


def open_launcher(settings: Mapping[str, Any] | str | None = None) -> "PyTorchJobLauncher":
    """The launcher with the knobs of `ClusterConfig`."""
    return PyTorchJobLauncher(knobs.from_dict(ClusterConfig, settings, where="cluster"))


class PyTorchJobLauncher:
    """Runs a job as a PyTorchJob; see `jobs.Launcher`.

    Locations must be ones that every pod can open. A launcher that is started again for the same outputs goes on with the job
    that it finds. `Job.resources` and `Job.nodes` count where the config says nothing.
    """

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config

    def run(self, job: Job, *, look: Callable[[], None] | None = None, log: Path | None = None) -> None:
        """See `Launcher`; `log` gets what rank 0 prints.

        Raises:
            JobFailed: the job ended without success, and no process of it said why.
            LaunchError: it could not be created or followed.
        """
        _check_locations(job)
        server = Api(self.config.api_patience_s)
        place = here.find(server)
        launch = _Launch(server, here.filled(self.config, place), place, job)
        preflight.check(server, launch.config, gpus=pods.gpus(job, launch.config), account=place.account)
        with contextlib.ExitStack() as held:
            output: IO[bytes] = held.enter_context(log.open("wb")) if log else sys.stderr.buffer
            held.enter_context(Heartbeat(launch.home, launch.config.heartbeat_s))
            stopping = held.enter_context(Stopping(Api(), launch.path))
            launch.run(stopping, output, look)


def _check_locations(job: Job) -> None:
    for option, location in {**job.inputs, **job.outputs}.items():
        if location and storage.is_local(location):
            raise ConfigError(
                f"{option} is a path of this machine: no pod can open it",
                where=location,
                remedy="Keep the run in an object store.",
            )


class _Launch:
    """One job on its way."""

    def __init__(self, server: Api, config: ClusterConfig, place: here.Here, job: Job) -> None:
        self.server, self.config, self.job = server, config, job
        self.name = names.job_name(job.name, place.run, job.outputs)
        self.home = heartbeat.home(job.outputs)
        self.path = custom(pytorchjob.GROUP, pytorchjob.VERSION, config.namespace, pytorchjob.PLURAL, self.name)
        beats = (f"--abandoned-after-s={config.abandoned_after_s:g}", f"--every-s={config.heartbeat_s:g}")
        made = pytorchjob.manifest(job, config, name=self.name, run=place.run, agent=(f"--home={self.home}", *beats))
        same_namespace = config.namespace == place.namespace
        self.manifest = pods.owned(made, place.owner if same_namespace else None)
        self.nodes = config.nodes or job.nodes

    def run(self, stopping: Stopping, output: IO[bytes], look: Callable[[], None] | None) -> None:
        following = Following(self.server, self.path, self.name, self.config, self.nodes)
        try:
            found = self._created(stopping)
            with (
                logs.phase(logger, f"job {self.name}"),
                pod_log.PodLog(Api(), self.config.namespace, pytorchjob.CONTAINER, output) as log,
            ):
                while not following.ended(found["metadata"]["uid"], log, look):
                    if not heartbeat.marked(self.home):
                        raise JobFailed(
                            "the job was deleted", where=self.name, remedy="Start the step again if nobody meant it."
                        )
                    logger.warning("the job ended itself, because this launcher was away for too long; it starts anew")
                    heartbeat.clear(self.home)
                    found = self._created(stopping)
                self._left(following)
        except TritowerError as error:
            raise self._failed(error, following) from error
        except BaseException:  # what `look` raised, Ctrl-C: the job ends with its launcher
            self._delete()
            raise

    def _created(self, stopping: Stopping) -> dict[str, Any]:
        """The job that is there, or a new one."""
        stopping.creating = True
        try:
            while True:
                found = self._create() or self._existing()
                if found:
                    return found
        finally:
            stopping.creating = False

    def _create(self) -> dict[str, Any] | None:
        query = {"fieldValidation": "Strict"}  # an unknown field would be dropped with a success
        try:
            made = self.server.call("POST", self.path.rpartition("/")[0], query=query, body=self.manifest)
        except Refused as error:
            if error.status == 409:
                return None
            raise
        logger.info("created the PyTorchJob %s: %d pod(s) of %d process(es)", self.name, self.nodes, self.job.processes)
        return made

    def _existing(self) -> dict[str, Any] | None:
        """The job of this name; None when it went, or had failed and was deleted.

        Raises:
            LaunchError: it is another job.
        """
        try:
            found = self.server.get(self.path)
        except Refused as error:
            if error.status == 404:
                return None
            raise
        own = self.manifest["metadata"]["annotations"][names.SPEC_HASH]
        if state.ended(found) == "Failed":
            logger.info("the PyTorchJob %s of an earlier attempt has failed; it is made anew", self.name)
            self._delete(wait=True)
            return None
        if found["metadata"].get("annotations", {}).get(names.SPEC_HASH) != own:
            raise LaunchError(
                "there is a job of this name with another spec",
                where=f"PyTorchJob {self.name}",
                remedy=f"If nobody needs it: kubectl -n {self.config.namespace} delete pytorchjob {self.name}",
            )
        logger.info("going on with the PyTorchJob %s, which is there already", self.name)
        return found

    def _left(self, following: Following) -> None:
        """After a success: pods that still run would hold their GPUs."""
        if not following.quiet(self.config.grace_s):
            logger.warning("pods of %s still run after its success; it is deleted", self.name)
            self._delete()

    def _failed(self, error: TritowerError, following: Following) -> TritowerError:
        """The error for the user, after everything was saved and the job deleted."""
        if isinstance(error, Refused) or not following.seen:  # it never was, or nobody may look
            with contextlib.suppress(LaunchError):
                if following.seen:
                    self._delete()
            return error
        kept = self._save(following)
        if self.config.keep_failed:
            kept += f" The job is left in place: kubectl -n {self.config.namespace} delete pytorchjob {self.name}"
        else:
            with contextlib.suppress(LaunchError):  # the heartbeat ends what cannot be deleted
                self._delete()
        return type(error)(error.problem, where=error.where, remedy=f"{error.remedy} {kept}".strip())

    def _save(self, following: Following) -> str:
        """Status, events and logs of all pods, to where the job writes; the sentence that says so."""
        place = f"{self.home}/failure"
        try:
            with tempfile.TemporaryDirectory(prefix="failure-") as scratch:
                for file, content in self._remains(following):
                    (Path(scratch) / file).write_bytes(content)
                storage.upload_tree(scratch, place)
        except (StorageError, LaunchError) as error:
            return f"Status and logs could not be saved: {error}"
        return f"Status, events and logs of its pods are in {place}."

    def _remains(self, following: Following) -> Iterator[tuple[str, bytes]]:
        following.look_again()
        for file, thing in (("job", following.job), ("pods", following.pods), ("events", following.events)):
            yield f"{file}.json", json.dumps(thing, indent=2).encode()
        for pod in following.pods:
            name = pod["metadata"]["name"]
            for previous in (False, True):
                text = pod_log.whole(self.server, self.config.namespace, name, pytorchjob.CONTAINER, previous=previous)
                if text:
                    yield f"{name}{'.previous' * previous}.log", text

    def _delete(self, *, wait: bool = False) -> None:
        try:
            self.server.call("DELETE", self.path, body={"propagationPolicy": "Foreground" if wait else "Background"})
        except Refused as error:
            if error.status != 404:
                raise
        if wait:  # pods of the same names cannot be made before the old ones are gone
            query = {"labelSelector": state.SELECTOR.format(name=self.name)}
            over = threading.Event()
            for _ in range(int((_GONE_S + self.config.grace_s) / self.config.poll_s) + 1):
                if not self.server.get(core(self.config.namespace, "pods"), **query)["items"]:
                    return
                over.wait(self.config.poll_s)
