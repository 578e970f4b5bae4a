"""A server of several real processes: what becomes of it when one dies, and what a spare one is."""

import re
import signal
import threading

import psutil
import pytest
from tritower.serving import standby, watching

from tests.support import tiny_server
from tests.support.server_workers import Workers
from tests.support.serving_process import served, until
from tests.support.visitors import Visitors

JOBS = ("nurse-1", "nurse-2", "cook-1")


def test_workers_killed_twice_and_a_spare_one_cost_their_requests_in_flight_and_no_figure(tmp_path):
    bundle = tiny_server.write(tmp_path / "bundle", version="v1", jobs=JOBS, pause_s=0.02)
    with served(tiny_server.command(bundle, workers=2, threads=4, linger_s=5), tmp_path) as running:
        workers = Workers.of(running)
        with Visitors(running.address, 8) as visitors:
            until(lambda: len(visitors.asked) > 50)
            for _ in range(2):
                spare, victim = workers.spare(), max(workers.serving(), key=lambda one: sum(one.cpu_times()[:2]))
                seen = len(visitors.failed)
                victim.kill()
                victim.wait(300)
                until(lambda one=spare: one in workers.serving())
                until(lambda: running.figure("tritower_ready") == 2)
                assert len(visitors.failed) - seen <= 8
                assert f"worker {victim.pid} died" in running.said()
            spare, seen = workers.spare(), len(visitors.failed)
            spare.kill()
            until(lambda: f"spare worker {spare.pid} died" in running.said())
            assert workers.spare().pid != spare.pid
            asked = len(visitors.asked)
            until(lambda: len(visitors.asked) > asked + 50)
            assert len(visitors.failed) == seen
        assert running.said().count("a spare one takes its place") == 2
        answered = len(visitors.asked) - len(visitors.failed)
        counted = running.figure('tritower_requests_total{route="/rank",status="200"}')
        # A killed one may have counted an answer that did not get out.
        assert answered <= counted <= answered + len(visitors.failed)
        assert running.figure("tritower_in_flight") == 1
        assert running.figure("tritower_ready") == 2
        assert running.figure('tritower_bundle{bundle="v1",name="main"}') == 2
        assert workers.folder.is_dir()
        running.process.popen.send_signal(signal.SIGTERM)
        assert running.process.ended(120) == 0
    assert not workers.folder.exists()


def test_workers_end_in_order_and_with_the_process_that_started_them(tmp_path):
    bundle = tiny_server.write(tmp_path / "bundle", version="v1", jobs=JOBS, pause_s=0.05)
    with served(tiny_server.command(bundle, workers=2, threads=4, linger_s=100), tmp_path / "a") as running:
        workers = Workers.of(running)
        workers.spare()
        everybody = workers.alive()
        with Visitors(running.address, 4, once=True) as visitors:
            until(lambda: len(visitors.asked) > 8)
            running.process.popen.send_signal(signal.SIGTERM)
            visitors.join()
            assert running.process.ended(120) == 0
        assert visitors.failed == []
        assert len(everybody) == 3
        assert psutil.wait_procs(everybody, timeout=300)[1] == []
    with served(tiny_server.command(bundle, workers=2), tmp_path / "b") as running:
        workers = Workers.of(running)
        workers.spare()
        orphans = workers.alive()
        running.process.popen.kill()
        assert psutil.wait_procs(orphans, timeout=300)[1] == []


def test_a_spare_worker_serves_the_newest_whole_bundle_and_a_damaged_one_is_tried_with_patience(tmp_path):
    """Nobody looks for a new bundle here but a spare worker that is told to serve."""
    bundle = tiny_server.write(tmp_path / "bundle", version="v1", jobs=JOBS)
    with served(tiny_server.command(bundle, workers=2, poll_s=3_600), tmp_path) as running, running.client() as client:
        workers = Workers.of(running)
        spare, (one, other) = workers.spare(), workers.serving()
        tiny_server.write(bundle, version="v2", jobs=JOBS)
        one.kill()
        until(lambda: spare in workers.serving() and running.figure("tritower_ready") == 2)
        assert [running.figure(f'tritower_bundle{{bundle="{version}"') for version in ("v1", "v2")] == [1, 1]
        spare = workers.spare()
        tiny_server.write(bundle, version="v3", broken=True)
        other.kill()
        until(lambda: spare in workers.serving() and running.figure("tritower_ready") == 2)
        assert running.figure('tritower_bundle{bundle="v2"') == 2

        def pauses():
            """After each spare worker that could not load; how long the first is depends on how long the killed ones served."""
            return [
                float(s)
                for s in re.findall(r"spare worker \d+ died: .*?another one starts in ([\d.]+) s", running.said(), re.S)
            ]

        until(lambda: len(pauses()) >= 2)
        first, second = pauses()[:2]
        assert second == min(30, 2 * first) > 1
        assert "the part 'ranker' is damaged" in running.said()
        assert client.post("/rank", json={}).json()["versions"]["bundle"] == "v2"
        tiny_server.write(bundle, version="v4", jobs=JOBS)
        assert workers.spare().is_running()


@pytest.mark.parametrize("poll_s", [0.01, 0.0])
def test_what_waits_takes_new_bundles_unless_it_is_told_not_to_look(tmp_path, poll_s, caplog):
    """Also before it is told to serve; one that is refused changes nothing."""
    bundle = tiny_server.write(tmp_path / "bundle", version="v1", jobs=JOBS)
    holder, places, given = tiny_server.TinyHolder(str(bundle)), {"main": (str(bundle), watching.tag(str(bundle)))}, []
    waiting = threading.Thread(target=lambda: given.append(standby.wait(tmp_path, 7, holder, places, poll_s)))
    waiting.start()
    until(standby.warm_file(tmp_path, 7).exists)
    if poll_s:
        tiny_server.write(bundle, version="v2", broken=True)
        until(lambda: "the new bundle is refused" in caplog.text)
        assert holder.get().versions.bundle == "v1"
    tiny_server.write(bundle, version="v3", jobs=JOBS)
    if poll_s:
        until(lambda: holder.get().versions.bundle == "v3")
    assert waiting.is_alive()
    standby.word_file(tmp_path, 7).touch()
    waiting.join(120)
    assert holder.get().versions.bundle == ("v3" if poll_s else "v1")
    assert (given[0]["main"][1] == watching.tag(str(bundle))) == bool(poll_s)
