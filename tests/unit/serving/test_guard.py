"""Who may come in, and how often."""

import multiprocessing
import os
import signal
import ssl
from concurrent.futures import ProcessPoolExecutor

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritower.errors import StorageError
from tritower.serving.guard import is_loopback
from tritower.serving.rate import Rate

from tests.support import tiny_server
from tests.support.certificates import Authority
from tests.support.serving_process import served, until


def test_a_bucket_gives_the_burst_then_the_rate():
    """Burst 3, 2 a second: three at once, the fourth after half a second; after a long rest three again, not more."""
    rate = Rate(2.0, 3)
    assert [rate.wait_s("a", 0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert rate.wait_s("a", 0.25) == 0.25
    assert rate.wait_s("a", 0.5) == 0
    assert rate.wait_s("b", 0.5) == 0
    assert [rate.wait_s("a", 100.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert Rate(0.0, 1).wait_s("a", 0.0) == Rate(0.0, 1).wait_s("a", 0.0) == 0


@given(
    st.lists(st.floats(0, 2), min_size=1, max_size=60),
    st.floats(0.5, 20),
    st.integers(1, 5),
)
def test_no_span_of_time_gets_more_than_burst_and_rate(pauses, per_s, burst):
    rate, now, granted = Rate(per_s, burst), 0.0, []
    for pause in pauses:
        now += pause
        if not rate.wait_s("a", now):
            granted.append(now)
    for i, first in enumerate(granted):
        for j, last in enumerate(granted[i:], i):
            assert j - i + 1 <= burst + (last - first) * per_s + 1e-6


def test_clients_beyond_the_memory_are_forgotten():
    rate = Rate(1.0, 1)
    for number in range(40_000):
        assert rate.wait_s(str(number), 0.0) == 0
    assert rate.wait_s("39999", 0.0) == 1.0
    assert rate.wait_s("0", 0.0) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),  # the last 64 bits are the client's to choose
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),  # IPv4 at a socket of IPv6
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
    ],
)
def test_an_address_is_counted_as_its_owner_has_it(one, other, same):
    rate = Rate(1.0, 1)
    assert rate.wait_s(one, 0.0) == 0
    assert (rate.wait_s(other, 0.0) > 0) is same


def _granted(file):
    """How many of 2,000 requests a process is granted at one instant, by each of three clients in turn."""
    rate = Rate(1.0, 1_000, file)
    return sum(not rate.wait_s(f"10.0.0.{number % 3}", 5.0) for number in range(6_000))


def test_processes_share_a_table_and_count_no_request_twice_nor_never(tmp_path):
    """Four processes ask at once for what one client may have 1,000 of, three clients: 3,000 are granted in all."""
    file, spawned = tmp_path / "rates", multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=spawned) as pool:
        assert sum(pool.map(_granted, [file] * 4)) == 3_000
    assert Rate(1.0, 1_000, file).wait_s("10.0.0.0", 5.0) == 1.0
    with pytest.raises(StorageError, match="rates"):
        Rate(1.0, 1, tmp_path / "nowhere" / "rates")


def test_a_clients_rate_is_of_the_server_whichever_worker_answers(tmp_path):
    """Of a burst of 10, one worker grants 6 and the other the 4 that are left; one that was started again grants none."""
    bundle = tiny_server.write(tmp_path / "bundle", version="v1")
    with served(tiny_server.command(bundle, workers=2, spares=0, rate_per_s=0.001, rate_burst=10), tmp_path) as running:

        def workers():
            return {one.pid: one for one in psutil.Process(running.process.popen.pid).children()}

        def asked(times):
            # A connection each: one that is kept would stay with its worker.
            return [httpx.post(f"{running.address}/rank", json={}, timeout=300).status_code for _ in range(times)]

        first, second = workers()
        os.kill(first, signal.SIGSTOP)
        try:
            assert asked(6) == [200] * 6
            os.kill(second, signal.SIGSTOP)
            os.kill(first, signal.SIGCONT)
            assert asked(6) == [200] * 4 + [429] * 2
            os.kill(first, signal.SIGKILL)
            until(lambda: len(workers()) == 2 and first not in workers() and running.figure("tritower_ready") == 2, 120)
            assert asked(2) == [429] * 2
        finally:
            for pid in (first, second):
                if psutil.pid_exists(pid):
                    os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "")),
    ],
)
def test_loopback(host, own):
    assert is_loopback(host) is own


def test_a_token_opens_the_doors_and_is_written_nowhere(tmp_path):
    bundle = tiny_server.write(tmp_path / "bundle", version="v1")
    tokens = tmp_path / "tokens"
    tokens.write_text("first-secret\n\nsecond-secret\n")
    command = tiny_server.command(bundle, host="0.0.0.0", token_file=str(tokens), rate_per_s=0.01, rate_burst=13)
    with served(command, tmp_path, {"TRITOWER_SERVING_TOKEN": "third-secret"}) as running:
        running.address = running.address.replace("0.0.0.0", "127.0.0.1")
        with running.client() as client:

            def status(header="", path="/rank"):
                headers = {"Authorization": header} if header else {}
                return client.post(path, json={}, headers=headers).status_code

            assert status() == 401
            assert [status(f"Bearer {one}-secret") for one in ("first", "second", "third")] == [200, 200, 200]
            assert [status(one) for one in ("Bearer first", "Bearer", "Digest x", "Basic %")] == [401] * 4
            assert client.post("/rank", json={}, auth=("anybody", "second-secret")).status_code == 200
            assert client.post("/rank", json={}, headers={"X-Tritower-Token": "second-secret"}).status_code == 200
            tokens.write_text("new-secret\n")
            assert (status("Bearer first-secret"), status("Bearer new-secret")) == (401, 200)
            told = client.get("/openapi.json")
            assert told.status_code == 401
            assert told.headers["www-authenticate"] == 'Basic realm="tritower"'
            assert told.json()["remedy"] == "Send `Authorization: Bearer TOKEN`."
            for path in (
                "/metrics",
                "/v2",
                "/v2/health/live",
                "/v2/health/ready",
                "/v2/models/tritower",
                "/v1/models/tritower",
            ):
                assert client.get(path).status_code == 200, path
            refused = client.post("/rank", json={}, headers={"Authorization": "Bearer new-secret"})
            assert refused.status_code == 429  # the fourteenth
            assert refused.json()["where"] == "127.0.0.1"
            assert 90 <= int(refused.headers["retry-after"]) <= 101
            assert client.get("/v2/health/ready").status_code == 200
            assert 'refused_total{reason="rate"} 1.0' in client.get("/metrics").text
        assert "secret" not in running.said()


def test_clients_behind_a_trusted_proxy_are_told_apart(tmp_path):
    bundle = tiny_server.write(tmp_path / "bundle", version="v1")
    command = tiny_server.command(bundle, trusted_proxies=["127.0.0.1"], rate_per_s=0.01, rate_burst=1)
    with served(command, tmp_path) as running, running.client() as client:
        came = [client.post("/rank", json={}, headers={"X-Forwarded-For": one}) for one in ("10.0.0.1", "10.0.0.2", "10.0.0.1")]
    assert [one.status_code for one in came] == [200, 200, 429]
    assert came[2].json()["where"] == "10.0.0.1"


def test_a_clients_certificate_opens_the_doors_and_probes_need_none(tmp_path):
    ours, theirs = Authority(tmp_path / "ours", "ours"), Authority(tmp_path / "theirs", "theirs")
    certificate, key = ours.certificate("server")
    bundle = tiny_server.write(tmp_path / "bundle", version="v1")
    config = {"host": "0.0.0.0", "tls_cert": certificate, "tls_key": key, "tls_client_ca": str(ours.file)}
    with served(tiny_server.command(bundle, **config), tmp_path) as running:
        address = running.address.replace("0.0.0.0", "127.0.0.1")
        assert address.startswith("https://")

        def status(files, path="/rank"):
            context = ssl.create_default_context(cafile=str(ours.file))
            if files:
                context.load_cert_chain(*files)
            with httpx.Client(base_url=address, verify=context, timeout=300) as client:
                return (client.post(path, json={}) if path == "/rank" else client.get(path)).status_code

        assert status(ours.certificate("client")) == 200
        assert status(None) == 401
        assert status(None, "/v2/health/ready") == 200
        with pytest.raises(httpx.HTTPError):
            status(theirs.certificate("stranger"))
