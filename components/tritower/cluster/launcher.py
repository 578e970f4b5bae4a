"""The launcher on a cluster: creates or adopts a job, follows it to its end, and leaves nothing running.

What differs between the kinds of resources stands in a module each, behind `kind.Kind`.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from tritower import config as knobs
from tritower import logs, storage
from tritower.cluster import heartbeat, here, names, pod_log, pods, preflight, remains, surroundings
from tritower.cluster.api import Api, Refused, core, custom
from tritower.cluster.config import ClusterConfig
from tritower.cluster.following import Following
from tritower.cluster.heartbeat import Heartbeat
from tritower.cluster.kind import Kind
from tritower.cluster.pytorchjob import PyTorchJobs
from tritower.cluster.state import Seen
from tritower.cluster.stopping import Stopping
from tritower.cluster.trainjob import TrainJobs
from tritower.errors import ConfigError, JobFailed, LaunchError, TritowerError
from tritower.jobs import Job

logger = logging.getLogger(__name__)
KINDS: Mapping[str, Kind] = {"pytorchjob": PyTorchJobs(), "trainjob": TrainJobs(), "katib": PyTorchJobs()}
_GONE_S, _PAUSE_S = 60.0, 0.5
_LAST_PATIENCE_S = 30.0
"""Seconds for which the API server may be away when a job is given up."""


def open_launcher(name: str, settings: Mapping[str, Any] | str | None = None) -> "ClusterLauncher":
    """The launcher called `name`, one of `KINDS`, with the knobs of `ClusterConfig`."""
    return ClusterLauncher(knobs.from_dict(ClusterConfig, settings, where="cluster"), KINDS[name])


class ClusterLauncher:
    """Runs a job as a resource of a cluster; see `jobs.Launcher`.

    Locations must be ones that every pod can open. A launcher that is started again for the same outputs goes on with the job
    that it finds. `Job.resources` and `Job.nodes` count where the config says nothing.

    Args:
        config: where and how.
        kind: which resource.
    """

    def __init__(self, config: ClusterConfig, kind: Kind) -> None:
        self.config, self.kind = config, kind

    def run(self, job: Job, *, look: Callable[[], None] | None = None, log: Path | None = None) -> None:
        """See `Launcher`; `log` gets what rank 0 prints.

        Raises:
            JobFailed: the job ended without success, and no process of it said why.
            LaunchError: it could not be created or followed.
        """
        self.outcome(job, look=look, log=log)

    def outcome(self, job: Job, *, look: Callable[[], None] | None = None, log: Path | None = None) -> Seen:
        """As `run`; the last look at it."""
        launch = self._checked(job)
        with contextlib.ExitStack() as held:
            output: IO[bytes] = held.enter_context(log.open("wb")) if log else sys.stderr.buffer
            beat = held.enter_context(Heartbeat(launch.home, launch.config.heartbeat_s))
            stopping = held.enter_context(Stopping(Api(), launch.paths))
            return launch.run(stopping, beat, output, look)

    def check(self, job: Job) -> None:
        """Whether `run` could begin: the cluster has what it needs, and the API server would take the resource.

        Raises:
            LaunchError: something is missing.
        """
        self._checked(job).rehearse()

    def _checked(self, job: Job) -> "_Launch":
        _check_locations(job)
        server = Api(self.config.api_patience_s)
        place = here.find(server)
        launch = _Launch(server, here.filled(self.config, place), self.kind, place, job)
        gpus = pods.gpus(job, launch.config)
        preflight.check(server, launch.config, self.kind, gpus=gpus, account=place.account)
        what = self.kind.resource.kind
        surroundings.warn(server, launch.config, resource=what, pods=launch.wanted, in_a_pipeline=bool(place.run))
        return launch


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

    def __init__(self, server: Api, config: ClusterConfig, kind: Kind, place: here.Here, job: Job) -> None:
        self.server, self.config, self.kind, self.job = server, config, kind, job
        self.name = names.job_name(job.name, place.run, job.outputs)
        self.home = heartbeat.home(job.outputs)
        beats = (f"--abandoned-after-s={config.abandoned_after_s:g}", f"--every-s={config.heartbeat_s:g}")
        agent = (f"--home={self.home}", f"--resource={kind.resource.path(config.namespace, self.name)}", *beats)
        made = kind.manifest(job, config, name=self.name, run=place.run, agent=agent)
        owner = place.owner if config.namespace == place.namespace else None
        self.manifest = pods.owned(made, owner)
        self.beside = [pods.owned(one, owner) for one in kind.beside(job, config, name=self.name, run=place.run)]
        self.paths = [_path(one) for one in (self.manifest, *self.beside)]
        self.wanted = kind.wanted(job, config)
        self.what = f"{kind.resource.kind} {self.name}"
        """The job, in words."""
        self.uid = ""
        """Of the job that was made or found: one of another uid is another's."""

    def run(self, stopping: Stopping, beat: Heartbeat, output: IO[bytes], look: Callable[[], None] | None) -> Seen:
        def watch() -> None:
            beat.check()
            if look:
                look()

        following = Following(self.server, self.kind, self.name, self.config, self.wanted)
        try:
            found = self._created(stopping)
            with logs.phase(logger, f"job {self.name}"), pod_log.Logs(self.config.namespace, output) as log:
                while not following.ended(found["metadata"]["uid"], log, watch):
                    if not heartbeat.marked(self.home):
                        remedy = "A run that is deleted takes its job along. Start the step again if nobody meant it."
                        raise JobFailed("the job was deleted", where=self.name, remedy=remedy)
                    logger.warning("the job ended itself, because this launcher was away for too long; it starts anew")
                    heartbeat.clear(self.home)
                    found = self._created(stopping)
                self._left(following)
        except TritowerError as error:
            if beat.superseded:
                stopping.paths = ()
                raise
            raise self._failed(error, following, beat) from error
        except BaseException:  # what `look` raised, Ctrl-C: the job ends with its launcher
            self.server.patience_s = min(self.server.patience_s, _LAST_PATIENCE_S)
            with contextlib.suppress(LaunchError):
                self._delete()
            raise
        return following.seen

    def rehearse(self) -> None:
        """Have everything looked at that looks at a new resource, webhooks included, without making one."""
        self._post(self.manifest, dry_run=True)

    def _created(self, stopping: Stopping) -> dict[str, Any]:
        """The job that is there, or a new one.

        Raises:
            LaunchError: another job has its name, or somebody makes and deletes it all the time.
        """
        stopping.creating = True
        limit = time.monotonic() + self.config.api_patience_s
        try:
            while True:
                found = self._existing() or self._create()
                if found:
                    self.uid = found["metadata"]["uid"]
                    return found
                if time.monotonic() > limit:
                    problem = (
                        f"the job could not be made within {self.config.api_patience_s:g} s: one of its name is there, or goes"
                    )
                    raise LaunchError(problem, where=self.what, remedy=f"Look at what holds it: {self._by_hand('get')}")
                time.sleep(min(self.config.poll_s, 1.0))
        finally:
            stopping.creating = False

    def _create(self) -> dict[str, Any] | None:
        """A new job; None when another launcher was faster."""
        self._wait_for_pods()
        for one in self.beside:
            if not self._post(one) and not self._same(one):
                return None
        made = self._posted()
        if made:
            logger.info("created the %s: %s", self.what, self.kind.size(self.job, self.config))
        return made

    def _posted(self) -> dict[str, Any] | None:
        limit = time.monotonic() + self.config.patience_s
        while True:
            try:
                return self._post(self.manifest)
            except Refused as error:
                if not self.kind.too_early(error) or time.monotonic() > limit:
                    raise
            time.sleep(_PAUSE_S)

    def _post(self, manifest: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any] | None:
        """What was created; None where there is one of this name."""
        query = {"fieldValidation": "Strict", "dryRun": "All" if dry_run else None}  # unknown fields would be dropped
        try:
            return self.server.call("POST", _path(manifest).rpartition("/")[0], query=query, body=manifest)
        except Refused as error:
            if error.status == 409:
                return None
            raise

    def _same(self, manifest: Mapping[str, Any]) -> bool:
        """Whether what is there has the same spec; it is deleted where it has not: no job needs it now."""
        try:
            if _hash(self.server.get(_path(manifest))) == _hash(manifest):
                return True
            self._delete_one(_path(manifest))
        except Refused as error:
            if error.status != 404:
                raise
        return False

    def _existing(self) -> dict[str, Any] | None:
        """The job of this name; None when it is not there, or had failed and was deleted.

        Raises:
            LaunchError: it is another job.
        """
        try:
            found = self.server.get(self.paths[0])
        except Refused as error:
            if error.status == 404:
                return None
            raise
        if found["metadata"].get("deletionTimestamp"):
            logger.info("the %s of an earlier attempt is being deleted", self.what)
            return None
        if self.kind.ended(found) == "Failed":
            logger.info("the %s of an earlier attempt has failed; it is made anew", self.what)
            self.uid = found["metadata"]["uid"]
            self._delete()
            return None
        if _hash(found) != _hash(self.manifest):
            remedy = f"If nobody needs it: {self._by_hand()}"
            raise LaunchError("there is a job of this name with another spec", where=self.what, remedy=remedy)
        logger.info("going on with the %s, which is there already", self.what)
        return found

    def _left(self, following: Following) -> None:
        """After a success: pods that still run would hold their GPUs. The work is done, whatever happens now."""
        try:
            if not following.quiet(self.config.grace_s):
                logger.warning("pods of %s still run after its success; it is deleted", self.name)
                self._delete()
        except LaunchError as error:
            logger.warning("whether all pods of %s have ended is not known: %s", self.name, error)

    def _failed(self, error: TritowerError, following: Following, beat: Heartbeat) -> TritowerError:
        """The error for the user, after everything was saved and the job deleted."""
        self.server.patience_s = min(self.server.patience_s, _LAST_PATIENCE_S)
        if isinstance(error, Refused) or not following.seen.job:  # it never was, or nobody may look
            with contextlib.suppress(LaunchError):
                if self.uid:
                    self._delete()
            return error
        kept = remains.save(following, f"{self.home}/failure")
        if self.config.keep_failed:
            kept += f" The job is left in place: {self._by_hand()}"
            beat.keep()
        else:
            with contextlib.suppress(LaunchError):  # the heartbeat ends what cannot be deleted
                self._delete()
        return type(error)(error.problem, where=error.where, remedy=f"{error.remedy} {kept}".strip())

    def _by_hand(self, verb: str = "delete") -> str:
        kinds = ",".join(one["kind"].lower() for one in (self.manifest, *self.beside))
        return f"kubectl -n {self.config.namespace} {verb} {kinds} {self.name}" + (" -o yaml" if verb == "get" else "")

    def _delete(self) -> None:
        for path in self.paths:
            first = path == self.paths[0]
            if not self._delete_one(path, uid=self.uid if first else ""):
                return

    def _delete_one(self, path: str, *, uid: str = "") -> bool:
        """False where it is another's by now."""
        try:
            self.server.delete(path, uid=uid)
        except Refused as error:
            if error.status == 409 and uid:
                return False
            if error.status != 404:
                raise
        return True

    def _wait_for_pods(self) -> None:
        """Those of an earlier job of this name hold the names of the new ones, and answer to them."""
        query = {"labelSelector": self.kind.selector(self.name)}
        for _ in range(int((_GONE_S + self.config.grace_s) / self.config.poll_s) + 1):
            if not self.server.get(core(self.config.namespace, "pods"), **query)["items"]:
                return
            time.sleep(self.config.poll_s)


def _path(manifest: Mapping[str, Any]) -> str:
    group, _, version = manifest["apiVersion"].partition("/")
    found = manifest["metadata"]
    return custom(group, version, found["namespace"], f"{manifest['kind'].lower()}s", found["name"])


def _hash(thing: Mapping[str, Any]) -> str:
    return str(thing["metadata"].get("annotations", {}).get(names.SPEC_HASH, ""))
