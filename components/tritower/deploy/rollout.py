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
from tritower.cluster.api import Api, Refused
from tritower.deploy import asking, kinds, manifests, routing
from tritower.deploy.asking import Direct, Endpoint, Proxied
from tritower.deploy.config import DeployConfig
from tritower.deploy.manifests import Set, short
from tritower.deploy.objects import Objects
from tritower.deploy.record import Record
from tritower.deploy.release import Release
from tritower.deploy.waiting import Waiting, standing
from tritower.errors import ConfigError, JobFailed, LaunchError, TritowerError

logger = logging.getLogger(__name__)


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
        self._objects = Objects(self._server, self.config)
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
        count = self._count(one, known, percent)
        if self._is_so(one, known, percent, count):
            return f"nothing to do: {_shown(one)} has {self._share(known, percent, count)} already"
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
        self._started(one, known, self._count(one, known, 0), told)
        return self._served(one, known, told)

    def rollback(self, **told: Any) -> str:
        """Take the canary's requests away; without one, let the version before serve again, to the byte."""
        known, told = self.record(), {"what": "rollback", **told}
        if known.canary:
            one = known.sets[known.canary]
            seen = self._objects.write(known.ended().told(**_line(one, told)))
            try:
                self._lead(known.stable)
            except LaunchError:  # else the next one would take back what serves
                self._tidily(lambda: self._objects.write(replace(known, seen=seen)))
                raise
            self._delete(one)
            return f"{_shown(one)} has no requests any more; {known.stable} has all"
        if not known.previous:
            raise LaunchError("there is no version to go back to", where=self._where(), remedy="Deploy one.")
        one = known.sets[known.previous]
        self._started(one, known, self._count(one, known, 0), told)
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
        return self._objects.record()

    # What is there already

    def _is_so(self, one: Set, known: Record, percent: int, count: int) -> bool:
        """Whether this very set has these requests, all of its pods being ready; so many of them, where they are the share."""
        wanted = (one.name, "", 0) if not percent else (known.stable, one.name, percent)
        if (known.stable, known.canary, known.percent) != wanted or known.sets.get(one.name) != one:
            return False
        if self.config.gateway and routing.unserved(self._server, self.config):
            return False
        found = Waiting(self._server, self.config, one).deployment()
        if percent and not self.config.gateway and self._pods(one) != count:
            return False
        service = self._objects.find("Service", self.config.name)
        selector = manifests.service(self.config, known.stable, self._beside(known.canary))["spec"]["selector"]
        return bool(found and standing(one, found).done and service and service["spec"]["selector"] == selector)

    def _pods(self, one: Set | None) -> int:
        """How many pods a set is to have now, whoever has said so: an autoscaler, or a person."""
        found = Waiting(self._server, self.config, one).deployment() if one else None
        return int(found["spec"].get("replicas", 1)) if found else 0

    def _count(self, one: Set, known: Record, percent: int) -> int:
        """With how many pods a set starts: those nearest to its share, one at least; for all requests as many as have them now,
        for an autoscaler adds none before the requests are there."""
        beside = self._pods(known.sets.get(known.stable))
        if percent and not self.config.gateway:
            return max(1, round((beside or self.config.replicas) * percent / (100 - percent)))
        return one.replicas if percent else max(one.replicas, min(beside, manifests.most(one)))

    def _share(self, known: Record, percent: int, count: int) -> str:
        """What a set has, in words."""
        if not percent:
            return "all requests"
        if self.config.gateway:
            return f"{percent} % of the requests, by the weights of the HTTPRoute {self.config.name}"
        every = count + self._pods(known.sets[known.stable])
        return f"{count} of {every} pods, {100 * count / every:.0f} % of the requests where {percent} % were asked for"

    # The steps of a rollout

    def _started(self, one: Set, known: Record, count: int, told: Mapping[str, Any]) -> None:
        """Its pods are ready and answer well; else they are gone, and the error says what serves on."""
        try:
            for item in (*manifests.shared(self.config), *manifests.sized(one, count)):
                self._objects.apply(item)
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
        now = self._now(known)
        kept = one.name in (now.stable, now.canary)
        if now.seen == known.seen:
            self._tidily(lambda: self._objects.write(known.told(**_line(one, told), failed=str(error)[:500])))
        else:  # whatever went wrong, this is why: the one who was first deletes the sets of all others
            by = f" by {now.history[-1]['by']}" if now.history and now.history[-1].get("by") else ""
            error = LaunchError(f"somebody else deployed meanwhile{by}", where=f"ConfigMap {self.config.name}-rollout",
                                remedy="Look at it (status), and deploy again.")  # fmt: skip
        if not kept:
            self._tidily(lambda: self._delete(one))
        left = f"{now.stable} serves on{', as before' * (now.stable == known.stable)}." if now.stable else "Nothing serves."
        what = "Its pods are left as they are" if kept else "Its pods are deleted"
        return JobFailed(f"{_shown(one)} was not let in: {error.problem}", where=error.where,
                         remedy=f"{error.remedy} {what}; {left}".strip())  # fmt: skip

    def _now(self, known: Record) -> Record:
        """The record as it is at a failure's end; as it was, where it cannot be read."""
        try:
            return self.record()
        except LaunchError as error:
            logger.warning("%s", error)
            return known

    def _shared(self, one: Set, known: Record, percent: int, count: int, told: Mapping[str, Any]) -> str:
        self._switched(one, known, known.shared(one, percent).told(**_line(one, told), percent=percent), told)
        self._tidy(known.stable, one.name)
        return f"{_shown(one)} has {self._share(known, percent, count)}; promote it, or roll back"

    def _served(self, one: Set, known: Record, told: Mapping[str, Any]) -> str:
        self._switched(one, known, known.promoted(one).told(**_line(one, told)), told)
        count = self._pods(one)
        for item in one.objects if count != one.replicas else ():  # its autoscaler goes down to its own number again
            self._objects.apply(item)
        self._tidy(one.name)
        return f"{_shown(one)} has all requests; {count} pod(s)"

    def _switched(self, one: Set, known: Record, new: Record, told: Mapping[str, Any]) -> None:
        """The requests go as the new record says; else as before, where the Service cannot be set or does not lead there."""
        try:
            seen = self._objects.write(new)
        except LaunchError as error:
            raise self._given_up(one, known, error, told) from error
        try:
            self._lead(new.stable, new.canary, new.percent)
            if not new.canary:
                asking.answers_as(self._endpoint(self.config.name), one.version, self.config.answer_timeout_s)
        except LaunchError as error:
            if known.stable in ("", one.name):
                raise
            before = replace(known, seen=seen)
            try:
                before = replace(known, seen=self._objects.write(before))
                self._lead(known.stable, known.canary, known.percent)
            except LaunchError as other:
                logger.warning("%s", other)
            raise self._given_up(one, before, error, told) from error

    def _lead(self, stable: str, canary: str = "", percent: int = 0) -> None:
        """Who gets requests from now on."""
        self._objects.apply(manifests.service(self.config, stable, self._beside(canary)))
        if self.config.gateway:
            weights = {self._behind(stable): 100 - percent} | ({self._behind(canary): percent} if canary else {})
            self._objects.apply(manifests.route(self.config, weights))
            routing.until_taken(self._server, self.config)

    def _beside(self, canary: str) -> str:
        """The set that the Service selects as well: none where a route has the shares."""
        return "" if self.config.gateway else canary

    def _behind(self, name: str) -> str:
        """The Service before one set's pods."""
        known = self.record().sets
        return known[name].deployment if name in known else name

    def _tidy(self, *kept: str) -> None:
        """Delete all other sets of this server; their pods answer what they have begun."""
        now = self.record()  # somebody else may have come after this one's last word in it
        kept = (*kept, now.stable, now.canary)
        for kind in {"InferenceService", "Deployment"} if self.kind == "kserve" else {"Deployment"}:
            for item in self._objects.named(kind, f"{manifests.SERVER}={self.config.name}"):
                owned = any(one["kind"] == "InferenceService" for one in item["metadata"].get("ownerReferences", []))
                if item["metadata"]["labels"].get(manifests.SET) not in kept and not owned:
                    self._objects.delete(kind, item["metadata"]["name"])

    def _delete(self, one: Set) -> None:
        self._objects.delete(one.objects[0]["kind"], one.name)

    def _tidily(self, do: Callable[[], object]) -> None:
        """What belongs to a failure's end and must not hide its reason."""
        try:
            do()
        except LaunchError as error:
            logger.warning("%s", error)

    # How it is asked

    def _endpoint(self, service: str) -> Endpoint:
        if self._by_proxy:
            return Proxied(self._server, self.config.namespace, service, token=self._token())
        address = f"http://{service}.{self.config.namespace}.svc"
        return Direct(address, token=self._token(), timeout_s=self.config.answer_timeout_s)

    def _token(self) -> str:
        return asking.own_token() or (self._objects.token() if self.config.token_secret else "")

    def _where(self) -> str:
        return f"{self.config.name} in namespace {self.config.namespace}"


def _shown(one: Set) -> str:
    return f"{one.name} (bundle {short(one.version)})"


def _line(one: Set, told: Mapping[str, Any]) -> dict[str, Any]:
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "set": one.name, "version": short(one.version), **told}
