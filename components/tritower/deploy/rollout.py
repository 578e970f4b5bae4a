"""A version comes to serve, and goes: its pods start beside those that serve, answer questions, and only then get requests.

Nothing that serves is touched before. What a rollout is about to do is written into the record first, with the record's version
as the condition, so that of two at one time the later one stops before it moves a request.
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tritower.cluster import here
from tritower.cluster.api import MERGE, Api, Refused, core
from tritower.deploy import asking, kinds, manifests, record
from tritower.deploy.asking import Direct, Endpoint, Proxied
from tritower.deploy.config import DeployConfig
from tritower.deploy.manifests import Object, Set, short
from tritower.deploy.record import Record
from tritower.deploy.release import Release
from tritower.deploy.waiting import Waiting, standing
from tritower.errors import ConfigError, JobFailed, LaunchError, TritowerError

logger = logging.getLogger(__name__)
MANAGER = "tritower-deploy"
"""Owner of the fields that a rollout sets."""


def filled(config: DeployConfig, place: here.Here) -> DeployConfig:
    """The config with namespace and image, by the step's own where it names none.

    Raises:
        ConfigError: neither does.
    """
    image = config.image
    if not image and place.image:
        head, slash, tail = place.image.rpartition("/")
        _, colon, tag = tail.partition(":")
        image = f"{head}{slash}serve:{tag}" if colon and "@" not in tail else ""
    found = replace(config, namespace=config.namespace or place.namespace, image=image)
    for knob in ("namespace", "image"):
        if not getattr(found, knob):
            raise ConfigError(f"no {knob} is named", where=knob, remedy="Name one: outside a pod there is no default.")
    return found


class Rollout:
    """One server, called `config.name`, in one namespace.

    Args:
        config: where and how.
        needs_image: whether pods of a new version are to be made.

    Raises:
        LaunchError: something that it needs is missing; all of it is told at once.
    """

    def __init__(self, config: DeployConfig, *, needs_image: bool = True) -> None:
        self._server = Api(config.api_patience_s)
        place = here.find(self._server)
        self.config = filled(config if needs_image else replace(config, image=config.image or "none"), place)
        self._by_proxy = (config.reach or ("service" if os.environ.get("KUBERNETES_SERVICE_HOST") else "proxy")) == "proxy"
        self.kind = kinds.find(self._server, self.config)
        kinds.check(self._server, self.config, self.kind, account=place.account, by_proxy=self._by_proxy)

    def deploy(self, release: Release, **told: Any) -> str:
        """Bring a release to serve, or to its share; what was done, in words.

        Args:
            release: what is to serve.
            told: goes into the record: gate, by, why.

        Raises:
            JobFailed: its pods never got ready, or answer wrongly: they are deleted, and what served serves on.
            LaunchError: the API server refuses, or somebody else deploys.
        """
        one, known = manifests.of(release, self.config, self.kind), self.record()
        percent = self.config.canary_percent if known.stable not in ("", one.name) else 0
        if self._is_so(one, known, percent):
            share = f"{percent} % of the requests" if percent else "all requests"
            return f"nothing to do: {_shown(one)} has {share} already"
        count = self._canary_pods(known, percent) if percent and not self.config.gateway else one.replicas
        told = {"what": "canary" if percent else "deploy", **told}
        self._started(one, known, count, told)
        if percent:
            return self._shared(one, known, percent, count, told)
        return self._served(one, known, told)

    def promote(self, **told: Any) -> str:
        """Give the canary all requests."""
        known = self.record()
        if not known.canary:
            raise LaunchError("there is no canary to promote", where=self._where(), remedy="Deploy with canary_percent first.")
        one = known.sets[known.canary]
        told = {"what": "promote", **told}
        self._started(one, known, one.replicas, told)
        return self._served(one, known, told)

    def rollback(self, **told: Any) -> str:
        """Take the canary's requests away; without one, let the version before serve again, to the byte."""
        known, told = self.record(), {"what": "rollback", **told}
        if known.canary:
            one = known.sets[known.canary]
            self._write(known.ended().told(**_line(one, told)))
            self._lead(known.stable)
            self._delete(one)
            return f"{_shown(one)} has no requests any more; {known.stable} has all"
        if not known.previous:
            raise LaunchError("there is no version to go back to", where=self._where(), remedy="Deploy one.")
        one = known.sets[known.previous]
        self._started(one, known, one.replicas, told)
        return self._served(one, known, told)

    def status(self) -> list[str]:
        """Lines: which sets have requests, how they stand, and what was done last."""
        known = self.record()
        lines = []
        for word, name in (("serves", known.stable), (f"canary, {known.percent} %", known.canary), ("before", known.previous)):
            if name:
                one = known.sets[name]
                found = Waiting(self._server, self.config, one).deployment()
                at = standing(one, found) if found else None
                lines.append(f"{word}: {_shown(one)}, " + (f"{at.ready} of {at.wanted} pods ready" if at else "no pods"))
        lines += [" ".join(f"{key}={value}" for key, value in line.items()) for line in known.history[-5:]]
        return lines or ["nothing has been deployed"]

    def record(self) -> Record:
        """What is known of the server."""
        try:
            return record.of(self._server.get(self._place("ConfigMap", record.name_of(self.config))))
        except Refused as error:
            if error.status != 404:
                raise
            return Record()

    # What is there already

    def _is_so(self, one: Set, known: Record, percent: int) -> bool:
        """Whether this very set has these requests, all of its pods being ready."""
        wanted = (one.name, "", 0) if not percent else (known.stable, one.name, percent)
        if (known.stable, known.canary, known.percent) != wanted or known.sets.get(one.name) != one:
            return False
        found = Waiting(self._server, self.config, one).deployment()
        service = self._found("Service", self.config.name)
        selector = manifests.service(self.config, known.stable, self._beside(known.canary))["spec"]["selector"]
        return bool(found and standing(one, found).done and service and service["spec"]["selector"] == selector)

    def _canary_pods(self, known: Record, percent: int) -> int:
        """How many pods come nearest to a share beside those that serve; one at least."""
        found = Waiting(self._server, self.config, known.sets[known.stable]).deployment()
        beside = int(found["spec"].get("replicas", 1)) if found else self.config.replicas
        return max(1, round(beside * percent / (100 - percent)))

    # The steps of a rollout

    def _started(self, one: Set, known: Record, count: int, told: Mapping[str, Any]) -> None:
        """Its pods are ready and answer well; else they are gone, and the error says what serves on."""
        try:
            for item in (*manifests.shared(self.config), *manifests.sized(one, count)):
                self._apply(item)
            waiting = Waiting(self._server, self.config, one)
            waiting.until_ready(count)
            endpoint = self._endpoint(one.deployment)
            asking.answers_as(endpoint, one.version, self.config.answer_timeout_s)
            asking.golden(endpoint, one.version, one.questions)
            logger.info("%s: %d question(s) answered by version %s", one.name, len(one.questions), short(one.version))
        except Refused:
            raise
        except TritowerError as error:
            raise self._given_up(one, known, error, told) from error

    def _given_up(self, one: Set, known: Record, error: TritowerError, told: Mapping[str, Any]) -> TritowerError:
        kept = one.name in (known.stable, known.canary)
        self._tidily(lambda: self._write(known.told(**_line(one, told), failed=str(error)[:500])))
        if not kept:
            self._tidily(lambda: self._delete(one))
        left = f"{known.stable} serves on, as before." if known.stable else "Nothing serves."
        what = "Its pods are left as they are" if kept else "Its pods are deleted"
        return JobFailed(f"{_shown(one)} was not let in: {error.problem}", where=error.where,
                         remedy=f"{error.remedy} {what}; {left}".strip())  # fmt: skip

    def _shared(self, one: Set, known: Record, percent: int, count: int, told: Mapping[str, Any]) -> str:
        self._write(known.shared(one, percent).told(**_line(one, told), percent=percent))
        self._lead(known.stable, one.name, percent)
        self._tidy(known.stable, one.name)
        share = f"{percent} % of the requests, by the weights of the HTTPRoute {self.config.name}"
        if not self.config.gateway:
            found = Waiting(self._server, self.config, known.sets[known.stable]).deployment()
            beside = int(found["spec"].get("replicas", 1)) if found else 0
            real = 100 * count / max(1, count + beside)
            share = f"{count} of {count + beside} pods, {real:.0f} % of the requests where {percent} % were asked for"
        return f"{_shown(one)} has {share}; promote it, or roll back"

    def _served(self, one: Set, known: Record, told: Mapping[str, Any]) -> str:
        """All requests to it; back to those before when the Service does not lead there."""
        self._write(known.promoted(one).told(**_line(one, told)))
        self._lead(one.name)
        try:
            asking.answers_as(self._endpoint(self.config.name), one.version, self.config.answer_timeout_s)
        except LaunchError as error:
            if known.stable in ("", one.name):
                raise
            self._lead(known.stable, known.canary, known.percent)
            self._tidily(lambda: self._write(replace(known, seen=self.record().seen)))
            raise self._given_up(one, replace(known, seen=self.record().seen), error, told) from error
        self._tidy(one.name)
        return f"{_shown(one)} has all requests; {one.replicas} pod(s)"

    def _lead(self, stable: str, canary: str = "", percent: int = 0) -> None:
        """Who gets requests from now on."""
        self._apply(manifests.service(self.config, stable, self._beside(canary)))
        if self.config.gateway:
            weights = {self._behind(stable): 100 - percent} | ({self._behind(canary): percent} if canary else {})
            self._apply(manifests.route(self.config, weights))

    def _beside(self, canary: str) -> str:
        """The set that the Service selects as well: none where a route has the shares."""
        return "" if self.config.gateway else canary

    def _behind(self, name: str) -> str:
        """The Service before one set's pods."""
        known = self.record().sets
        return known[name].deployment if name in known else name

    def _tidy(self, *kept: str) -> None:
        """Delete all other sets of this server; their pods answer what they have begun."""
        for kind in {"InferenceService", "Deployment"} if self.kind == "kserve" else {"Deployment"}:
            try:
                query = {"labelSelector": f"{manifests.SERVER}={self.config.name}"}
                found = self._server.get(kinds.path(kind, self.config.namespace), **query)["items"]
            except Refused as error:
                if error.status not in (403, 404):
                    raise
                continue
            for item in found:
                owned = any(one["kind"] == "InferenceService" for one in item["metadata"].get("ownerReferences", []))
                if item["metadata"]["labels"].get(manifests.SET) not in kept and not owned:
                    self._delete_named(kind, item["metadata"]["name"])

    def _delete(self, one: Set) -> None:
        self._delete_named(one.objects[0]["kind"], one.name)

    def _delete_named(self, kind: str, name: str) -> None:
        parts = ("Deployment", "Service", "HorizontalPodAutoscaler") if kind == "Deployment" else (kind,)
        for part in parts:
            try:
                self._server.delete(self._place(part, name))
            except Refused as error:
                if error.status != 404:
                    raise
        logger.info("%s: deleted", name)

    def _tidily(self, do: Callable[[], None]) -> None:
        """What belongs to a failure's end and must not hide its reason."""
        try:
            do()
        except LaunchError as error:
            logger.warning("%s", error)

    # The API server

    def _apply(self, item: Object) -> None:
        meta = item["metadata"]
        try:
            self._server.apply(self._place(item["kind"], meta["name"]), item, manager=MANAGER, force=self.config.take_over)
        except Refused as error:
            if error.status != 409:
                raise
            remedy = "Undo it there, or deploy with take_over, which sets these fields whoever has set them."
            raise LaunchError(f"somebody else has set what this would set: {error.problem}",
                              where=f"{item['kind']} {meta['name']}", remedy=remedy) from error  # fmt: skip

    def _write(self, new: Record) -> None:
        """Raises: LaunchError: somebody else wrote it since it was read."""
        item = record.config_map(new, self.config)
        place = self._place("ConfigMap", record.name_of(self.config))
        try:
            if new.seen:
                item["data"] |= {f"set.{name}": None for name in self.record().sets.keys() - new.sets.keys()}
                self._server.call("PATCH", place, body=item, content_type=MERGE)
            else:
                self._server.call("POST", place.rpartition("/")[0], body=item)
        except Refused as error:
            if error.status != 409:
                raise
            raise LaunchError(
                "somebody else deployed meanwhile: the record of the rollouts is not what it was",
                where=f"ConfigMap {record.name_of(self.config)}", remedy="Look at it (status), and deploy again.",
            ) from error  # fmt: skip

    def _found(self, kind: str, name: str) -> Object | None:
        try:
            return self._server.get(self._place(kind, name))
        except Refused as error:
            if error.status != 404:
                raise
            return None

    def _place(self, kind: str, name: str) -> str:
        return kinds.path(kind, self.config.namespace, name)

    def _endpoint(self, service: str) -> Endpoint:
        if self._by_proxy:
            return Proxied(self._server, self.config.namespace, service, token=self._token())
        address = f"http://{service}.{self.config.namespace}.svc"
        return Direct(address, token=self._token(), timeout_s=self.config.answer_timeout_s)

    def _token(self) -> str:
        if (own := asking.own_token()) or not self.config.token_secret:
            return own
        import base64

        try:
            found = self._server.get(core(self.config.namespace, "secrets", self.config.token_secret))
        except Refused as error:
            if error.status not in (403, 404):
                raise
            return ""
        return base64.b64decode(found.get("data", {}).get("token", "")).decode().strip()

    def _where(self) -> str:
        return f"{self.config.name} in namespace {self.config.namespace}"


def _shown(one: Set) -> str:
    return f"{one.name} (bundle {short(one.version)})"


def _line(one: Set, told: Mapping[str, Any]) -> dict[str, Any]:
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "set": one.name, "version": short(one.version), **told}
