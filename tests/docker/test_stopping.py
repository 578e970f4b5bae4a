"""Containers of a run that is stopped or killed, and the error of a step in a container."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import docker
import pytest
from tritower._build import image_name
from tritower.errors import StepError

from pipelines import local
from pipelines.containers import on_this_machine, run_container, runner_arguments
from tests.support import family, stoppable

pytestmark = [pytest.mark.docker]
RUN = """
import sys
import docker
from pipelines import top
from pipelines.containers import run_container, runner_arguments

arguments = runner_arguments(read_only=[]) | {"name": sys.argv[2]}
sys.exit(top.run(lambda: run_container(docker.from_env(), sys.argv[1], ["sleep", "600"], {}, **arguments)))
"""


def built() -> str:
    """The image that `make images` made last."""
    return on_this_machine(image_name("base"))


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return docker.from_env()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_container_of_a_stopped_run_is_removed(client: docker.DockerClient, number: signal.Signals) -> None:
    name = f"tritower-test-{os.getpid()}-{number.name}"

    def there() -> bool:
        return any(
            one.name == name and one.status == "running" for one in client.containers.list(all=True, ignore_removed=True)
        )

    run = subprocess.Popen([sys.executable, "-c", RUN, built(), name], stderr=subprocess.PIPE, text=True)
    family.wait_for(there, "the container runs")
    run.send_signal(number)
    assert run.wait(30) == (-9 if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in run.communicate()[1]
    if number == signal.SIGKILL:  # nobody was left to do it: the next run does
        assert there()
        run_container(client, built(), ["true"], {}, **runner_arguments(read_only=[]))
    assert not there()


def test_the_container_of_a_run_that_lives_stays(client: docker.DockerClient) -> None:
    name = f"tritower-test-{os.getpid()}-lives"
    run = subprocess.Popen([sys.executable, "-c", RUN, built(), name])
    family.wait_for(lambda: client.containers.list(filters={"name": name}), "the container runs")
    run_container(client, built(), ["true"], {}, **runner_arguments(read_only=[]))
    assert client.containers.list(filters={"name": name})
    run.terminate()
    assert run.wait(30) == 143


def test_a_step_in_a_container_tells_its_own_error(tmp_path: Path) -> None:
    """The same in a container as in a subprocess, and a process that the kernel killed says so."""
    pipeline = stoppable.compiled(tmp_path)
    pipeline.write_text(pipeline.read_text().replace("tritower/base:0", built()))
    for deed, words in (
        ("forge", r"act: DataError: the title is 'nurse\nFakeError: nothing is wrong' (in row 7). Mend it. The step's log is"),
        ("eat", "act: StepError: memory ran out, and the kernel killed the container's process. Give it more memory."),
    ):
        with pytest.raises(StepError) as caught:
            how = runner_arguments(read_only=[]) | {"mem_limit": "400m", "memswap_limit": "400m"}
            local.run(pipeline, {"deed": deed, "folder": "/tmp"}, use_cache=False, root=tmp_path / "root", containers=how)
        assert str(caught.value).startswith(words)
