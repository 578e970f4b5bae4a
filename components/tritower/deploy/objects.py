"""The objects of one server on the cluster: read, applied, deleted, and its record."""

import base64
import logging

from tritower.cluster.api import MERGE, Api, Refused, core
from tritower.deploy import kinds, record
from tritower.deploy.config import DeployConfig
from tritower.deploy.manifests import Object
from tritower.deploy.record import Record
from tritower.errors import LaunchError

logger = logging.getLogger(__name__)
MANAGER = "tritower-deploy"
"""Owner of the fields that a rollout sets."""


class Objects:
    """Those of the server `config.name`.

    Args:
        server: the API server.
        config: with its namespace.
    """

    def __init__(self, server: Api, config: DeployConfig) -> None:
        self._server, self._config = server, config

    def find(self, kind: str, name: str) -> Object | None:
        """An object; None where there is none."""
        try:
            return self._server.get(self._place(kind, name))
        except Refused as error:
            if error.status != 404:
                raise
            return None

    def named(self, kind: str, label: str) -> list[Object]:
        """Those with a label `key=value`; none where this process may not list them, or the cluster does not know them."""
        try:
            return list(self._server.get(kinds.path(kind, self._config.namespace), labelSelector=label)["items"])
        except Refused as error:
            if error.status not in (403, 404):
                raise
            return []

    def apply(self, item: Object) -> None:
        """Server-side apply. Raises: LaunchError: somebody else has set a field of it otherwise."""
        meta = item["metadata"]
        try:
            self._server.apply(self._place(item["kind"], meta["name"]), item, manager=MANAGER, force=self._config.take_over)
        except Refused as error:
            if error.status != 409:
                raise
            remedy = "Undo it there, or deploy with take_over, which sets these fields whoever has set them."
            raise LaunchError(f"somebody else has set what this would set: {error.problem}",
                              where=f"{item['kind']} {meta['name']}", remedy=remedy) from error  # fmt: skip

    def delete(self, kind: str, name: str) -> None:
        """Delete what makes a set's pods, and what goes with it."""
        parts = (kind, "HorizontalPodAutoscaler") + ("Service",) * (kind == "Deployment")
        for part in parts:
            try:
                self._server.delete(self._place(part, name))
            except Refused as error:
                if error.status != 404 and (part == kind or error.status != 403):  # who may not delete an autoscaler made none
                    raise
        logger.info("%s: deleted", name)

    def record(self) -> Record:
        """What is known of the server."""
        found = self.find("ConfigMap", record.name_of(self._config))
        return record.of(found) if found else Record()

    def write(self, new: Record) -> str:
        """The record's resourceVersion then. Raises: LaunchError: somebody else wrote it since it was read."""
        item = record.config_map(new, self._config)
        place = self._place("ConfigMap", record.name_of(self._config))
        try:
            if new.seen:
                item["data"] |= {f"set.{name}": None for name in self.record().sets.keys() - new.sets.keys()}
                found = self._server.call("PATCH", place, body=item, content_type=MERGE)
            else:
                found = self._server.call("POST", place.rpartition("/")[0], body=item)
            return str(found["metadata"]["resourceVersion"])
        except Refused as error:
            if error.status != 409:
                raise
            raise LaunchError(
                "somebody else deployed meanwhile: the record of the rollouts is not what it was",
                where=f"ConfigMap {record.name_of(self._config)}", remedy="Look at it (status), and deploy again.",
            ) from error  # fmt: skip

    def token(self) -> str:
        """The token of the Secret; empty where there is none, or this process may not read it."""
        try:
            found = self._server.get(core(self._config.namespace, "secrets", self._config.token_secret))
        except Refused as error:
            if error.status not in (403, 404):
                raise
            return ""
        return base64.b64decode(found.get("data", {}).get("token", "")).decode().strip()

    def _place(self, kind: str, name: str) -> str:
        return kinds.path(kind, self._config.namespace, name)
