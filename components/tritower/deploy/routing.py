"""Whether a gateway has taken an HTTPRoute up, and if not, why: in the words of its controller.

An API server takes any HTTPRoute. That nobody reads it, that no listener lets it in, or that a Service behind it is not found
stands in its status alone, one entry for each Gateway and controller.
"""

import time
from collections.abc import Mapping
from typing import Any

from tritower.cluster.api import Api, Refused
from tritower.deploy import kinds
from tritower.deploy.config import DeployConfig
from tritower.errors import LaunchError

Object = Mapping[str, Any]
_WANTED = ("Accepted", "ResolvedRefs")


def until_taken(server: Api, config: DeployConfig) -> None:
    """Wait until the route, as it is now, is in force.

    Controllers say for a moment that a Service is not found that was made a moment ago: what they say counts at the end.

    Args:
        server: the API server.
        config: with namespace and gateway.

    Raises:
        LaunchError: it is not, within `answer_timeout_s`; with the controller's reason.
    """
    space, name = place(config)
    limit = time.monotonic() + config.answer_timeout_s
    while why := unserved(server, config):
        if time.monotonic() > limit:
            raise LaunchError(f"the HTTPRoute is not in force after {config.answer_timeout_s:g} s: {why}",
                              where=f"HTTPRoute {config.name}, Gateway {space}/{name}",
                              remedy=f"Look at both: kubectl -n {space} describe gateway {name}.")  # fmt: skip
        time.sleep(config.poll_s)


def unserved(server: Api, config: DeployConfig) -> str:
    """Why the route is not in force now, by its own status and by the Gateway's; empty when it is."""
    try:
        route = server.get(kinds.path("HTTPRoute", config.namespace, config.name))
    except Refused as error:
        if error.status != 404:
            raise
        return "there is no HTTPRoute"
    space, name = place(config)
    return "; ".join(filter(None, (fault(route, space, name), _unprogrammed(server, space, name))))


def place(config: DeployConfig) -> tuple[str, str]:
    """Namespace and name of the Gateway."""
    space, _, name = config.gateway.rpartition("/")
    return space or config.namespace, name


def fault(route: Object, space: str, name: str) -> str:
    """Why a Gateway does not serve a route as it is now; empty when it does.

    Args:
        route: with its status.
        space, name: of the Gateway.
    """
    meta = route["metadata"]
    found = [
        one for one in (route.get("status") or {}).get("parents", []) if _is(one["parentRef"], meta["namespace"], space, name)
    ]
    if not found:
        return "no gateway's controller has taken it up"
    faults = [_first(one.get("conditions", []), _WANTED, meta["generation"]) for one in found]
    return "" if "" in faults else faults[0]


def _is(reference: Object, own: str, space: str, name: str) -> bool:
    return (reference.get("kind", "Gateway"), reference.get("namespace", own), reference["name"]) == ("Gateway", space, name)


def _first(conditions: list[Object], wanted: tuple[str, ...], generation: int) -> str:
    """The first condition that does not hold for this generation, in words; empty when all do."""
    by_type = {one["type"]: one for one in conditions}
    for word in wanted:
        one = by_type.get(word)
        if one is None or one.get("observedGeneration", generation) < generation:
            return f"its controller has not said yet whether it is {word}"
        if one["status"] != "True":
            said = f": {one['message']}" if one.get("message") else ""
            return f"{word} is {one['status']}, {one.get('reason', 'without a reason')}{said}"
    return ""


def _unprogrammed(server: Api, space: str, name: str) -> str:
    """Why a Gateway takes no requests, as far as this process may look; empty when it takes them."""
    try:
        gateway = server.get(kinds.path("Gateway", space, name))
    except Refused as error:
        if error.status == 403:
            return ""
        if error.status == 404:
            return "there is no such Gateway"
        raise
    conditions, generation = (gateway.get("status") or {}).get("conditions", []), gateway["metadata"]["generation"]
    why = _first(conditions, ("Accepted", "Programmed"), generation)
    return f"the Gateway takes no requests: {why}" if why else ""
