"""The log of a pod: every line once, in order, whatever is cut, starts again, is late or has another clock."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritower.cluster import pod_log
from tritower.cluster.api import Api, Refused, core, custom
from tritower.cluster.pod_log import PodLog

from tests.support.apiserver import Cluster, kinds, served
from tests.support.pytorchjobs import job, shell, until

JOBS = custom("kubeflow.org", "v1", "team", "pytorchjobs")
ATTEMPTS = "n=$(cat n 2>/dev/null || echo 0); echo $((n+1)) > n; for i in $(seq {lines}); do echo attempt $n line $i; done; "
MISSING = pod_log._MISSING.decode().strip()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Its clocks go fast: a container starts again after ten milliseconds."""
    with served(Cluster(namespaces=["team"], speed=100)) as one:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setenv("KUBECONFIG", str(one.kubeconfig(tmp_path / "kubeconfig", namespace="team")))
        yield one


def start(command: str) -> None:
    Api().call("POST", JOBS, body=job("x", shell(command), restart="OnFailure"))


def pod(cluster: Cluster) -> dict[str, Any]:
    """The pod, once its container has been started."""
    return until(lambda: next((one for one in cluster.store.all(kinds.POD) if one["status"].get("containerStatuses")), None))


def restarts(cluster: Cluster) -> int:
    return int(pod(cluster)["status"]["containerStatuses"][0]["restartCount"])


def following(path: Path) -> PodLog:
    return PodLog(Api(), "team", path.open("wb"))


def told(*attempts: int, lines: int) -> list[str]:
    return [f"attempt {attempt} line {number + 1}" for attempt in attempts for number in range(lines)]


def test_a_cut_before_the_container_starts_again_costs_no_line(cluster: Cluster, tmp_path: Path) -> None:
    """The stream breaks off, the container fails and starts again, and only then the log can be read again."""
    cluster.faults.cut("log", 333)
    start(ATTEMPTS.format(lines=60) + "test $n = 1 || { sleep 1; exit 1; }; sleep 2")
    with following(tmp_path / "log") as log:
        log.of(pod(cluster))
        until(lambda: (tmp_path / "log").read_text())
        cluster.faults.answer(503, path="/log", times=3)
        until(lambda: restarts(cluster) == 1)
        until(lambda: "attempt 1 line 60" in (tmp_path / "log").read_text())
    assert (tmp_path / "log").read_text().splitlines() == told(0, 1, lines=60)


def test_a_container_that_starts_again_and_again_unseen_is_told_as_what_is_missing(cluster: Cluster, tmp_path: Path) -> None:
    start(ATTEMPTS.format(lines=5) + "test $n = 3 || exit 1; sleep 300")
    until(lambda: restarts(cluster) == 3)
    with following(tmp_path / "log") as log:
        log.of(pod(cluster))
        until(lambda: "attempt 3 line 5" in (tmp_path / "log").read_text())
    assert (tmp_path / "log").read_text().splitlines() == [MISSING, *told(2, 3, lines=5)]


def test_what_was_read_before_is_not_missing(cluster: Cluster, tmp_path: Path) -> None:
    """Attempt 0 is read to its end; 1 comes and goes while the server is away: both are there."""
    until_read = f"test $n = 1 || until test -e {tmp_path}/read; do sleep 0.05; done"
    start(f"{ATTEMPTS.format(lines=5)} test $n = 2 && sleep 300; {until_read}; exit 1")
    with following(tmp_path / "log") as log:
        log.of(pod(cluster))
        until(lambda: "attempt 0 line 5" in (tmp_path / "log").read_text())
        (tmp_path / "read").touch()
        until(lambda: restarts(cluster) == 2)
        until(lambda: "attempt 2 line 5" in (tmp_path / "log").read_text())
    assert (tmp_path / "log").read_text().splitlines() == told(0, 1, 2, lines=5)


def test_a_log_that_the_node_has_removed_does_not_keep_the_next_one_away(cluster: Cluster, tmp_path: Path) -> None:
    start(ATTEMPTS.format(lines=5) + "test $n = 1 || exit 1; sleep 300")
    until(lambda: restarts(cluster) == 1)
    message = 'previous terminated container "pytorch" in pod "x-master-0" not found'
    cluster.faults.answer(400, path="previous=true", message=message, times=99)
    with following(tmp_path / "log") as log:
        log.of(pod(cluster))
        until(lambda: "attempt 1 line 5" in (tmp_path / "log").read_text())
    assert (tmp_path / "log").read_text().splitlines() == [MISSING, *told(1, lines=5)]


def attempt(cluster: Cluster) -> Any:
    attempts = cluster.kubelet.runner(pod(cluster)["metadata"]["uid"]).container("pytorch").attempts
    return until(lambda: attempts and attempts[-1])


@pytest.mark.parametrize(("back_s", "cuts"), [(0.0, True), (40.0, True), (7200.0, False)])
def test_a_clock_that_is_set_back_hides_no_line(cluster: Cluster, tmp_path: Path, back_s: float, cuts: bool) -> None:
    """By minutes even while the stream is cut; by hours while it is not."""
    start("sleep 300")
    lines = attempt(cluster).lines
    with following(tmp_path / "log") as log:
        log.of(pod(cluster))
        for number in range(5):
            if cuts:
                cluster.faults.gone(0.3)
                time.sleep(0.15)
            ahead = time.time() + 7200 - back_s * number
            lines.extend((ahead + part / 1e6, b"%d.%d\n" % (number, part)) for part in range(20))
            until(lambda number=number: f"{number}.19\n" in (tmp_path / "log").read_text())
    assert (tmp_path / "log").read_text().splitlines() == [f"{number}.{part}" for number in range(5) for part in range(20)]


@pytest.mark.parametrize("apart_s", [0.0, 1e-6], ids=["at one moment", "within a second"])
def test_a_flood_is_cut_and_comes_whole(cluster: Cluster, tmp_path: Path, apart_s: float) -> None:
    """The server is asked for whole seconds, which hold more lines than are remembered."""
    count = 9_000 if not apart_s else 25_000
    start("sleep 300")
    moment = float(int(time.time()))
    cluster.faults.cut("log", 400_000, 7)
    with following(tmp_path / "log") as log:
        log.of(pod(cluster))
        attempt(cluster).lines.extend((moment + apart_s * number, b"%06d\n" % number) for number in range(count))
        until(lambda: f"{count - 1:06d}\n" in (tmp_path / "log").read_text())
    assert (tmp_path / "log").read_text().splitlines() == [f"{number:06d}" for number in range(count)]


def test_a_pod_that_runs_on_in_silence_keeps_nobody_waiting(cluster: Cluster, tmp_path: Path) -> None:
    start("echo first; sleep 300")
    with following(tmp_path / "log") as log:
        log.of(pod(cluster))
        until(lambda: (tmp_path / "log").read_text())
        attempt(cluster).lines.append((time.time(), b"last\n"))
        start_s = time.monotonic()
    assert time.monotonic() - start_s < 30  # the stream itself would be silent for a minute
    assert (tmp_path / "log").read_text() == "first\nlast\n"


def test_the_end_is_read_though_the_server_is_away_for_a_moment(cluster: Cluster, tmp_path: Path) -> None:
    start("echo first; sleep 0.5; echo last")
    with following(tmp_path / "log") as log:
        log.of(pod(cluster))
        until(lambda: (tmp_path / "log").read_text())
        cluster.faults.gone(2.5)
        until(lambda: len(attempt(cluster).lines) == 2)
    assert (tmp_path / "log").read_text() == "first\nlast\n"


def test_nothing_is_written_when_the_launcher_has_gone_on(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    monkeypatch.setattr(pod_log, "_LAST_S", 0.2)
    start("while true; do echo more; sleep 0.01; done")
    released = threading.Event()
    cluster.faults.hold(released.is_set, path="/log", times=5)
    with following(tmp_path / "log") as log:
        log.of(pod(cluster))
        until(lambda: any("/log" in path for _, path in cluster.faults.seen))
    log.output.close()
    released.set()
    log._thread.join(300)
    assert not log._thread.is_alive() and not errors and not (tmp_path / "log").read_text()


def test_a_pod_made_anew_under_the_same_name_is_another_pod(cluster: Cluster, tmp_path: Path) -> None:
    start("echo $HOSTNAME begins; sleep 300")
    first = pod(cluster)
    with following(tmp_path / "log") as log:
        log.of(first)
        until(lambda: (tmp_path / "log").read_text())
        cluster.drain(first["metadata"]["name"], namespace="team")
        until(lambda: pod(cluster)["metadata"]["uid"] != first["metadata"]["uid"])
        time.sleep(2.5)  # the new one's log is there, and nobody has told of it yet
        assert (tmp_path / "log").read_text().count("begins") == 1
        log.of(pod(cluster))
        until(lambda: (tmp_path / "log").read_text().count("begins") == 2)
    assert (tmp_path / "log").read_text().count("begins") == 2


def test_what_the_runtime_says_instead_of_a_log_is_no_line(cluster: Cluster, tmp_path: Path) -> None:
    """Recorded: 200 'unable to retrieve container logs for containerd://...' for a container that was removed."""
    start("trap 'echo got TERM; exit 143' TERM; echo begins; sleep 300 & wait $!")
    first = pod(cluster)
    seen = []
    with following(tmp_path / "log") as log:
        log.of(first)
        until(lambda: (tmp_path / "log").read_text())
        cluster.speed = 0.2  # the moment in which the container is gone and the pod is not lasts two seconds and a half
        cluster.drain(first["metadata"]["name"], namespace="team")
        path = core("team", "pods", first["metadata"]["name"]) + "/log"
        while pod(cluster)["metadata"]["uid"] == first["metadata"]["uid"]:
            with contextlib.suppress(Refused):  # the pod is gone
                seen.append(Api().raw("GET", path).data)
            time.sleep(0.02)
    assert any(text.startswith(b"unable to retrieve container logs for containerd://") for text in seen)
    text = (tmp_path / "log").read_text()
    assert "unable" not in text and text.splitlines()[:1] == ["begins"]


def test_times_are_in_order_of_time() -> None:
    order = [
        b"2026-03-29T01:59:59.5+01:00",
        b"2026-03-29T03:00:00+02:00",
        b"2026-03-29T01:00:00.04Z",
        b"2026-03-29T01:00:00.1Z",
    ]
    assert sorted([order[i] for i in (3, 1, 0, 2)], key=pod_log._time) == order
