"""Real server processes: how they start, end, change their bundle, and what one may do to them."""

import os
import signal
import socket
import subprocess
import time

import httpx
import pytest
from tritower.serving import server
from tritower.serving.config import ServeConfig

from tests.support import tiny_server
from tests.support.serving_process import served, until
from tests.support.visitors import Visitors

JOBS = ("nurse-1", "nurse-2", "cook-1")


def _refused(command, environment=None):
    """What a server says that does not start."""
    ended = subprocess.run(command, env=os.environ | (environment or {}), capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1
    assert ended.stdout == ""
    return ended.stderr


def _rest(connection):
    """What comes until the server closes it."""
    return b"".join(iter(lambda: connection.recv(10_000), b""))


def test_an_answer_does_not_wait_for_an_acknowledgement():
    with server.listen(ServeConfig(port=0)) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_damaged_bundle_at_the_start_is_named_and_nothing_serves(tmp_path):
    bundle = tiny_server.write(tmp_path / "bundle", version="v1", broken=True)
    said = _refused(tiny_server.command(bundle))
    assert "ArtifactError: the part 'ranker' is damaged\n  where: ranker/join.json\n  remedy: Copy it again." in said
    assert "ArtifactError: the part 'ranker' is damaged" in _refused(tiny_server.command(bundle, workers=2))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"host": "0.0.0.0"}, "the server would be open to all\n  where: host 0.0.0.0\n  remedy: Set token_file,"),
        ({"token_file": "/nowhere"}, "the tokens cannot be read: No such file or directory\n  where: /nowhere"),
        ({"tls_cert": "/nowhere", "tls_key": "/nowhere"}, "TLS cannot be set up"),
        ({"host": "192.0.2.1", "workers": 2}, "host 192.0.2.1, port 0"),
    ],
)
def test_what_cannot_be_served_is_named(tmp_path, config, said):
    bundle = tiny_server.write(tmp_path / "bundle", version="v1")
    token = {"TRITOWER_SERVING_TOKEN": "t"} if "workers" in config else {}
    assert said in _refused(tiny_server.command(bundle, **config), token)


def test_sigterm_finishes_what_was_begun_and_kept_connections(tmp_path):
    """Every request has its answer, the last one on each connection says that it is the last, and the process ends with 0."""
    bundle = tiny_server.write(tmp_path / "bundle", version="v1", jobs=JOBS, pause_s=0.1)
    with (
        served(tiny_server.command(bundle, threads=8, linger_s=200), tmp_path) as running,
        Visitors(running.address, 6, once=True) as visitors,
    ):
        until(lambda: len(visitors.asked) > 12)
        running.process.popen.send_signal(signal.SIGTERM)
        visitors.join()
        assert running.process.ended(120) == 0  # nobody holds it
    assert visitors.failed == []
    assert sum(one.closes for one in visitors.asked) == 6


def test_a_slow_answer_is_finished_after_sigterm_and_idle_connections_do_not_hold_the_end(tmp_path):
    held = tmp_path / "held"
    held.touch()
    bundle = tiny_server.write(tmp_path / "bundle", version="v1", jobs=JOBS, held=str(held))
    with served(tiny_server.command(bundle, linger_s=0.3, drain_s=200), tmp_path) as running, running.client() as idle:
        assert idle.get("/v2/health/ready").status_code == 200
        with Visitors(running.address, 1, once=True) as visitors:
            until(lambda: running.figure("tritower_in_flight") == 2)
            running.process.popen.send_signal(signal.SIGTERM)
            assert running.process.ended(1) is None
            held.unlink()
            assert running.process.ended(120) == 0
        assert visitors.failed == []
        assert len(visitors.asked) == 1


def test_while_it_ends_it_is_alive_but_not_ready(tmp_path):
    bundle = tiny_server.write(tmp_path / "bundle", version="v1", jobs=JOBS)
    with (
        served(tiny_server.command(bundle, linger_s=200, header_timeout_s=200), tmp_path) as running,
        running.client() as client,
    ):
        client.get("/v2/health/live")
        with socket.create_connection(("127.0.0.1", int(running.address.rpartition(":")[2]))):  # keeps the first step going
            running.process.popen.send_signal(signal.SIGTERM)
            until(lambda: client.get("/v2/health/ready").status_code == 503)
            assert client.get("/v2/health/live").status_code == 200
            assert client.get("/v1/models/tritower").json() == {"name": "tritower", "ready": False}
            assert running.figure("tritower_ready") == 0
            running.process.popen.send_signal(signal.SIGTERM)  # impatient
            assert running.process.ended(120) == 0


def test_a_new_bundle_comes_in_while_it_serves(tmp_path):
    """No request fails, and no answer mixes two versions: the ranking writes its version into every job it gives."""
    bundle = tiny_server.write(tmp_path / "bundle", version="v0", jobs=JOBS, pause_s=0.002)
    body = {"instances": [{"query": "nurse"}] * 4}
    with served(tiny_server.command(bundle, poll_s=0.05, threads=4), tmp_path) as running:
        with Visitors(running.address, 4, path="/v1/models/tritower:predict", body=body) as visitors:
            until(lambda: len(visitors.asked) > 4)
            for number in range(1, 6):
                tiny_server.write(bundle, version=f"v{number}", jobs=JOBS, pause_s=0.002)
                until(lambda n=number: running.client().get("/v2/models/tritower").json()["versions"] == [f"v{n}"])
            seen = len(visitors.asked)
            until(lambda: len(visitors.asked) > seen + 8)  # those of four visitors who had asked before, and one after
        assert visitors.failed == []
        assert running.figure('tritower_bundle_swaps_total{result="taken"}') == 5
        assert running.figure('tritower_bundle{bundle="v5",name="main"}') == 1
        assert running.figure('tritower_bundle{bundle="v4",name="main"}') == 0
    assert len(visitors.asked) > 20
    for one in visitors.asked:
        answers = one.answer["predictions"]
        assert (
            len({answer["versions"]["bundle"] for answer in answers} | {job["title"] for a in answers for job in a["jobs"]})
            == 1
        )
    assert {one.answer["predictions"][0]["versions"]["bundle"] for one in visitors.asked} >= {"v0", "v5"}


def test_a_damaged_bundle_does_not_take_the_place_of_a_whole_one(tmp_path):
    bundle = tiny_server.write(tmp_path / "bundle", version="v1", jobs=JOBS)
    with served(tiny_server.command(bundle, poll_s=0.05), tmp_path) as running, running.client() as client:
        tiny_server.write(bundle, version="v2", broken=True)
        until(lambda: client.get("/v2/health/ready").json()["trouble"])
        ready = client.get("/v2/health/ready")
        assert ready.status_code == 200
        assert "the part 'ranker' is damaged" in ready.json()["trouble"]
        assert client.post("/rank", json={}).json()["versions"]["bundle"] == "v1"
        (bundle / "bundle.json").unlink()
        time.sleep(0.2)
        assert client.post("/rank", json={}).json()["versions"]["bundle"] == "v1"
        tiny_server.write(bundle, version="v3", jobs=JOBS)
        until(lambda: client.post("/rank", json={}).json()["versions"]["bundle"] == "v3")
        assert client.get("/v2/health/ready").json()["trouble"] == ""
    assert running.said().count("the new bundle is refused, the one before stays") == 1


def test_slow_clients_are_shown_the_door_and_hold_up_nobody(tmp_path):
    bundle = tiny_server.write(tmp_path / "bundle", version="v1", jobs=JOBS)
    config = {"header_timeout_s": 2, "body_timeout_s": 2}
    with served(tiny_server.command(bundle, **config), tmp_path) as running, running.client() as client:
        place = ("127.0.0.1", int(running.address.rpartition(":")[2]))
        silent, slow, slower, kept = (socket.create_connection(place) for _ in range(4))
        slow.sendall(b"POST /rank HTTP/1.1\r\nHost: x\r\nX-")
        slower.sendall(b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        kept.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.post("/rank", json={}).status_code == 200
        for one in (silent, slow, slower, kept):
            one.settimeout(120)
        told = b""
        while b'{"live":true}' not in told:
            told += kept.recv(10_000)
        kept.sendall(b"G")  # the first byte of a request whose rest never comes
        assert told.startswith(b"HTTP/1.1 200") and _rest(kept) == _rest(silent) == _rest(slow) == b""
        told = _rest(slower)
        assert told.startswith(b"HTTP/1.1 408") and b"the body did not come in time" in told
        assert client.post("/rank", json={}).status_code == 200


def test_what_is_no_http_is_told_so(tmp_path):
    bundle = tiny_server.write(tmp_path / "bundle", version="v1", jobs=JOBS)
    with served(tiny_server.command(bundle), tmp_path) as running:
        for sent in (b"\x16\x03\x01\x00 TLS?\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000):
            with socket.create_connection(("127.0.0.1", int(running.address.rpartition(":")[2]))) as one:
                one.sendall(sent)
                told = _rest(one)
                assert told.startswith(b"HTTP/1.1 400") and b'"what": "Invalid HTTP request received"' in told


def test_too_many_at_once_are_told_to_come_back(tmp_path):
    """One thread, room for one to wait: of four that come together two are answered."""
    held = tmp_path / "held"
    held.touch()
    bundle = tiny_server.write(tmp_path / "bundle", version="v1", jobs=JOBS, held=str(held))
    with served(tiny_server.command(bundle, threads=1, max_waiting=1), tmp_path) as running:
        with Visitors(running.address, 4) as visitors:
            until(lambda: len(visitors.asked) > 2)
            held.unlink()
        refused = [one for one in visitors.asked if one.status == 503]
        assert refused
        assert {one.status for one in visitors.asked} == {200, 503}
        assert refused[0].answer["what"] == "1 requests wait already"


def test_the_address_is_free_again_and_taken_ones_are_named(tmp_path):
    bundle = tiny_server.write(tmp_path / "bundle", version="v1", jobs=JOBS)
    with served(tiny_server.command(bundle), tmp_path) as running:
        port = int(running.address.rpartition(":")[2])
        assert f"port {port}" in _refused(tiny_server.command(bundle, port=port))
        assert httpx.get(f"{running.address}/v2/health/live").status_code == 200
    with served(tiny_server.command(bundle, port=port), tmp_path / "again") as running:
        assert running.address.endswith(f":{port}")
