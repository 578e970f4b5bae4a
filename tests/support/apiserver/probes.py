"""Readiness probes: httpGet and tcpSocket, asked of the pod's own address."""

import http.client
import socket
from typing import Any

Object = dict[str, Any]


def answers(probe: Object, address: str) -> bool:
    """Whether what listens in the pod says that it is ready."""
    timeout_s = probe.get("timeoutSeconds", 1)
    try:
        if asked := probe.get("httpGet"):
            connection = http.client.HTTPConnection(address, int(asked["port"]), timeout=timeout_s)
            try:
                connection.request("GET", asked.get("path", "/"))
                return 200 <= connection.getresponse().status < 400
            finally:
                connection.close()
        with socket.create_connection((address, int(probe["tcpSocket"]["port"])), timeout=timeout_s):
            return True
    except (OSError, http.client.HTTPException):
        return False
