"""Faults drawn at random over a short job.

Whatever comes: it ends well or with one clear error, one job lives at a time, nothing runs on, and the log has no line twice
and no gap.
"""

import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tritower import errors, storage

from tests.support.apiserver import Cluster, kinds
from tests.support.family import wait_for
from tests.unit.cluster.test_launcher import jobs
from tests.unit.cluster.test_stopping import running, start

LINES, LASTS_S = 60, 4.0
PARTS = ("", "/pytorchjobs", "/pods", "/events", "/log", "labelSelector")


class Story:
    """What happens to one job, drawn from a seed. Args: where: the job's root. folder: for what the launchers print."""

    def __init__(self, seed: int, cluster: Cluster, where: str, folder: Path) -> None:
        self.drawn, self.cluster, self.where, self.folder = random.Random(seed), cluster, where, folder
        self.told = [f"seed {seed}"]
        self.launchers: list[subprocess.Popen[bytes]] = []
        self.terminated = False

    def begin(self) -> None:
        output = self.folder / f"{len(self.launchers)}"
        settings = {"abandoned_after_s": 2, "restarts": 6, "start_timeout_s": 120}
        self.launchers.append(start(self.where, "tell", str(LINES), output=output, **settings))

    def go(self) -> bool:
        """Whether a launcher ended well."""
        self.begin()
        deeds = [self.answer, self.answer, self.slow, self.gone, self.cut, self.kill, self.drain, self.replace, self.operator]
        deeds += [self.second, self.silence, self.terminate]
        end = time.monotonic() + LASTS_S
        while time.monotonic() < end and not self.terminated:
            time.sleep(self.drawn.uniform(0.05, 0.6))
            deed: Callable[[], str] = self.drawn.choice(deeds)
            self.told.append(f"{time.monotonic() - end + LASTS_S:.2f} s {deed.__name__} {deed()}")
        self.cluster.faults.pending.clear()
        self.cluster.down.clear()
        codes = [launcher.wait(300) for launcher in self.launchers]
        self.told.append(f"exit codes {codes}, jobs {len(jobs(self.cluster))}")
        return 0 in codes

    def answer(self) -> str:
        code, part = self.drawn.choice((409, 410, 429, 500, 502, 503, 504)), self.drawn.choice(PARTS)
        message = {409: 'object is being deleted: "it" already exists', 500: "etcdserver: request timed out"}.get(code, "")
        self.cluster.faults.answer(code, path=part, times=self.drawn.randint(1, 4), message=message)
        return f"{code} {part}"

    def slow(self) -> str:
        part = self.drawn.choice(PARTS)
        self.cluster.faults.slow(self.drawn.uniform(0.1, 1.0), path=part, times=self.drawn.randint(1, 5))
        return part

    def gone(self) -> str:
        self.cluster.faults.gone(self.drawn.uniform(0.1, 1.5))
        return ""

    def cut(self) -> str:
        self.cluster.faults.cut("log", *(self.drawn.randint(1, 900) for _ in range(2)))
        return ""

    def pod(self) -> str:
        pods = [one for one in self.cluster.store.all(kinds.POD) if one["status"].get("phase") == "Running"]
        return str(self.drawn.choice(pods)["metadata"]["name"]) if pods else ""

    def kill(self) -> str:
        name = self.pod()
        if name:
            self.cluster.kill(name, namespace="team")
        return name

    def drain(self) -> str:
        name = self.pod()
        if name:
            self.cluster.drain(name, namespace="team")
        return name

    def replace(self) -> str:
        """The launcher is killed, and the backend starts it again."""
        if len(self.launchers) > 2:
            return "not again"
        self.launchers[-1].kill()
        self.launchers[-1].wait()
        time.sleep(self.drawn.uniform(0, 0.5))
        self.begin()
        return ""

    def second(self) -> str:
        """Another one beside it."""
        if len(self.launchers) > 2:
            return "not again"
        self.begin()
        return ""

    def operator(self) -> str:
        self.cluster.down.add("training-operator")
        threading.Timer(self.drawn.uniform(0.2, 1.5), self.cluster.down.clear).start()
        return ""

    def silence(self) -> str:
        """Somebody tidies the store."""
        storage.remove(f"{self.where}/.model.launch")
        return ""

    def terminate(self) -> str:
        if self.drawn.random() < 0.7 or not running(self.cluster):
            return "not now"
        self.terminated = True
        for launcher in self.launchers:
            launcher.send_signal(signal.SIGTERM)
        return ""

    def check(self, well: bool) -> None:
        outputs = [(self.folder / f"{number}").read_text(errors="replace") for number in range(len(self.launchers))]
        shown = "\n".join([*self.told, *outputs])
        for launcher, output in zip(self.launchers, outputs, strict=True):
            if launcher.returncode == 1:
                last = output.rstrip().splitlines()[-1]
                kind = re.match(r"tritower\.errors\.(\w+): |tritower\.cluster\.api\.(Refused): ", last)
                assert kind and (kind[2] or hasattr(errors, kind[1])), shown
            else:
                assert launcher.returncode in (0, -signal.SIGKILL, -signal.SIGTERM), shown
            attempts: dict[str, list[int]] = {}
            for attempt, number in re.findall(r"^([0-9a-f]{8}) line (\d+)$", output, re.MULTILINE):
                attempts.setdefault(attempt, []).append(int(number))
            assert all(numbers == list(range(len(numbers))) for numbers in attempts.values()), shown
            if launcher.returncode == 0:
                assert len(list(attempts.values())[-1]) == LINES + 1, shown
        wait_for(lambda: not running(self.cluster), shown)
        if well:
            assert [one["status"]["conditions"][-1]["type"] for one in jobs(self.cluster)] == ["Succeeded"], shown
            assert not storage.names(f"{self.where}/.model.launch/heartbeat"), shown
        elif not self.terminated:
            assert not jobs(self.cluster), shown
        self.check_history(shown)

    def check_history(self, shown: str) -> None:
        """At no time do pods of two jobs run."""
        at_work: dict[str, str] = {}
        for change in self.cluster.store.history:
            if change.kind is kinds.POD:
                meta = change.item["metadata"]
                is_up = change.verb != "DELETED" and change.item["status"].get("phase") == "Running"
                at_work.pop(meta["uid"], None)
                if is_up and "deletionTimestamp" not in meta:
                    at_work[meta["uid"]] = meta["ownerReferences"][0]["uid"]
            assert len(set(at_work.values())) <= 1, shown


@pytest.mark.parametrize("seed", [1])
def test_faults_at_random(cluster: Cluster, s3: str, tmp_path: Path, seed: int) -> None:
    story = Story(seed, cluster, s3, tmp_path)
    story.check(story.go())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(100, 109), *range(110, 116)])
def test_more_faults_at_random(cluster: Cluster, s3: str, tmp_path: Path, seed: int) -> None:
    story = Story(seed, cluster, s3, tmp_path)
    story.check(story.go())
