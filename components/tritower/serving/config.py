"""The knobs of the server: where it listens, what it lets in, how long it waits."""

from dataclasses import dataclass
from typing import Literal

from tritower.config import check

Precision = Literal["auto", "fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """How the server listens and what it lets in."""

    host: str = "127.0.0.1"
    """Address to listen on. Any but loopback needs a token or certificates of clients."""

    port: int = 8080
    """Port to listen on; 0 = one that is free."""

    workers: int = 1
    """Processes that answer, each with a copy of the bundle. Decision 0029 has the figures for 1."""

    spares: int = 1
    """Processes that wait, loaded and warm, for the place of a worker that dies; each takes as much memory as a worker. Only
    where several workers serve: one process alone is started again by whatever started it. Decision 0041."""

    precision: Precision = "auto"
    """What queries are encoded in: fp32, fp16 (weights alone, sums in fp32), bf16 or int8; `auto` is fp16 where the bundle has
    such weights, else fp32. Decisions 0037 and 0045 say what each costs."""

    threads: int = 0
    """Searches that a process computes at one time; 0 = as many as it is granted CPUs."""

    max_waiting: int = 64
    """Requests of a process that may wait for a thread; more are refused with 503. At some 10 ms a search, the last one waits
    less than a second."""

    max_body_bytes: int = 512 * 1024
    """Longest request body. 5,000 candidates with ids of 40 characters and a long history fit."""

    max_query_chars: int = 1_000
    """Longest query; the encoder reads some 100 words at most."""

    max_candidates: int = 5_000
    """Most candidates of a search, over five times what a search is budgeted for."""

    max_k: int = 500
    """Most jobs in an answer."""

    max_searches: int = 16
    """Most searches in one request of the protocols V1 and V2."""

    header_timeout_s: float = 10.0
    """A connection is closed where a request's headers take longer."""

    body_timeout_s: float = 10.0
    """A request is refused where its body takes longer."""

    keep_alive_s: float = 75.0
    """A connection is closed where no request comes for so long; longer than the 60 s after which proxies commonly close
    theirs, so that none sends a request into a connection that closes."""

    linger_s: float = 3.0
    """Seconds after SIGTERM in which requests are still taken; each answer ends its connection."""

    drain_s: float = 20.0
    """Seconds after that, for answers that are not finished. With `linger_s` less than a pod's usual grace period of 30."""

    token_file: str = ""
    """File with bearer tokens, one a line; read again when it changes. The environment's TRITOWER_SERVING_TOKEN is one more."""

    tls_cert: str = ""
    """File with the server's certificate chain (PEM); empty = no TLS."""

    tls_key: str = ""
    """File with its private key (PEM)."""

    tls_client_ca: str = ""
    """File with the authority (PEM) whose certificates clients must show in place of a token."""

    rate_per_s: float = 100.0
    """Requests a second that a client may make of this server in the long run, whichever worker answers; 0 = any number. A core
    answers about so many. Replicas count apart."""

    rate_burst: int = 200
    """Requests that a client may make at once, after a rest; of this server, as above."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose X-Forwarded-For names the client; without them a proxy counts as one client."""

    poll_s: float = 10.0
    """Seconds between looks for a new bundle at the location; 0 = never."""

    as_of: Literal["now", "last_event"] = "now"
    """The time of a search that names none: the clock's, or just after the last event that the state knows. The latter is for
    a log that has ended, such as the demo's, whose adverts have all expired by now."""

    def __post_init__(self) -> None:
        check(bool(self.host), "host", self.host, "that is an address")
        check(0 <= self.port <= 65_535, "port", self.port, "between 0 and 65535")
        check(1 <= self.workers <= 256, "workers", self.workers, "between 1 and 256")
        check(0 <= self.spares <= 16, "spares", self.spares, "between 0 and 16")
        check(0 <= self.threads <= 256, "threads", self.threads, "between 0 and 256")
        least_one = ("max_body_bytes", "max_query_chars", "max_candidates", "max_searches", "rate_burst")
        for name in least_one:
            check(getattr(self, name) >= 1, name, getattr(self, name), "of at least 1")
        check(self.max_k >= 10, "max_k", self.max_k, "of at least 10, which a request that names none asks for")
        for name in ("header_timeout_s", "body_timeout_s", "keep_alive_s"):
            check(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        for name in ("max_waiting", "linger_s", "drain_s", "rate_per_s", "poll_s"):
            check(getattr(self, name) >= 0, name, getattr(self, name), "of at least 0")
        check(bool(self.tls_cert) == bool(self.tls_key), "tls_key", self.tls_key, "together with tls_cert, or neither")
        check(not self.tls_client_ca or bool(self.tls_cert), "tls_client_ca", self.tls_client_ca, "only with tls_cert")
