"""The outcome of a run, posted as JSON to an address of the user's; whatever becomes of that changes nothing else.

The address may carry a secret, as those of chat systems do: of it only the host is ever shown.
"""

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

from tritower.errors import ConfigError

VARIABLE = "TRITOWER_WEBHOOK"
_TRIES, _TIMEOUT_S, _PAUSE_S = 3, 10.0, 1.0
_PASSES = (408, 425, 429)


def address(given: str = "") -> str:
    """The address to post to: the given one, else that of TRITOWER_WEBHOOK; empty for none.

    Raises:
        ConfigError: it is not an http or https address.
    """
    url = given or os.environ.get(VARIABLE, "")
    parts = urllib.parse.urlsplit(url) if url.isprintable() else urllib.parse.SplitResult("", "", "", "", "")
    if url and not (parts.scheme in ("http", "https") and parts.hostname and " " not in url):
        where = "--webhook" if given else VARIABLE
        raise ConfigError("the webhook is no http or https address", where=where, remedy="Give it as https://host/path.")
    return url


def post(url: str, content: Mapping[str, Any]) -> str:
    """Post JSON, up to three times; empty when it was taken, else why not, in a line for standard error.

    Args:
        url: as `address` gives it.
        content: the outcome; its `text` is a line for people, as chat systems show it.
    """
    data = json.dumps(content).encode()
    reason = ""
    for number in range(_TRIES):
        if number:
            time.sleep(_PAUSE_S * 2 ** (number - 1))
        request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"}, method="POST")  # noqa: S310 - `address` checks the scheme
        try:
            with urllib.request.build_opener(_NoWayRound).open(request, timeout=_TIMEOUT_S):
                return ""
        except urllib.error.HTTPError as error:
            reason = f"it answered {error.code}"
            error.close()
            if error.code < 500 and error.code not in _PASSES:
                break
        except (OSError, HTTPException, ValueError) as error:
            why = getattr(error, "reason", error)
            reason = "no answer in time" if isinstance(why, TimeoutError) else type(why).__name__
            if isinstance(why, OSError) and why.strerror:
                reason = why.strerror
    return f"The webhook at {urllib.parse.urlsplit(url).hostname} did not take the outcome: {reason}."


class _NoWayRound(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the POST into a GET, and carry the address to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None
