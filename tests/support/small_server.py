"""A model server as small as can be, for pods of tests: python3 -m tests.support.small_server serve --host H --port P.

VERSION is what it calls itself. BEHAVIOUR: `unready`, `crash`, `other` (answers as another version), `nan`, `none` (finds no
job).
"""

import itertools
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BEHAVIOUR, VERSION = os.environ.get("BEHAVIOUR", ""), os.environ.get("VERSION", "v")
TOKEN = os.environ.get("TRITOWER_SERVING_TOKEN", "")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        if self.path == "/v2/health/ready":
            is_ready = BEHAVIOUR != "unready"
            return self.answer({"ready": is_ready}, 200 if is_ready else 503)
        return self.answer({"name": "tritower", "versions": ["0ther" if BEHAVIOUR == "other" else VERSION]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if TOKEN and self.headers.get("X-Tritower-Token") != TOKEN:
            return self.answer({"problem": "no token"}, 401)
        scores = [] if BEHAVIOUR == "none" else [float("nan") if BEHAVIOUR == "nan" else 0.5, 0.25]
        jobs = [{"job_id": f"j{rank}", "rank": rank, "score": score} for rank, score in enumerate(scores, 1)]
        return self.answer({"jobs": jobs, "versions": {"bundle": VERSION}})

    def answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A probe that hangs up is nothing to print."""


def main(words: list[str]) -> int:
    if BEHAVIOUR == "crash":
        print("the bundle is damaged: ranker/join.json", flush=True)
        return 3
    given = dict(itertools.pairwise(words))
    server = Server((given["--host"], int(given["--port"])), Handler)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print("serves", flush=True)
    server.serve_forever(0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
