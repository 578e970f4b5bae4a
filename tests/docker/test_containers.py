"""The compiled pipeline in real containers: `make images && make test-docker`."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pyarrow.parquet as pq
import pytest
from kfp import compiler, dsl
from tritower._build import Image, image_name
from tritower.errors import StepError
from tritower.ingest import step as ingest_step
from tritower.ingest.component import ingest
from tritower.ingest.config import IngestConfig

from pipelines import compiling, local
from pipelines.containers import on_this_machine, run_container, runner_arguments, user_names
from tests.support.s3 import client as s3_client
from tests.support.s3 import s3_server

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
# The client that builds with BuildKit, as `images/build.py` chooses it.
CLIENT = "import os, sys, engine as e; os.execve(e.builder(), ['docker', *sys.argv[1:]], os.environ | e.BUILDKIT)"


def built(kind: Image) -> str:
    """The image that `make images` made last, as `pipelines run --docker` finds it."""
    return on_this_machine(image_name(kind))


def docker_build(label: str, context: Path) -> None:
    words = ["build", "-q", "-t", label, str(context)]
    subprocess.run([sys.executable, "-c", CLIENT, *words], check=True, env=os.environ | {"PYTHONPATH": str(ROOT / "images")})


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return docker.from_env()


def test_a_container_that_fails_at_once_is_a_failure(client: docker.DockerClient) -> None:
    for code in (0, 3):
        program = ["python3", "-c", f"raise SystemExit({code})"]
        assert run_container(client, built("base"), program, {}, **runner_arguments(read_only=[])) == code


def test_a_container_has_no_network_and_a_read_only_root(
    client: docker.DockerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    program = "import os, pathlib\nprint(sorted(os.listdir('/sys/class/net')))\npathlib.Path('/opt/x').touch()"
    assert run_container(client, built("base"), ["python3", "-c", program], {}, **runner_arguments(read_only=[])) == 1
    output = capsys.readouterr().out
    assert "['lo']" in output
    assert "Read-only file system" in output


def test_an_image_that_is_not_here_is_named_with_what_makes_it(client: docker.DockerClient) -> None:
    for image, target in (("tritower/base:none", "make images"), ("tritower/spark:none", "make image-spark")):
        with pytest.raises(StepError, match=rf"the image is not on this machine .*{image}.* Run `{target}` first"):
            run_container(client, image, ["true"], {}, **runner_arguments(read_only=[]))


def test_a_shell_in_an_image_imports_kfp(client: docker.DockerClient, capsys: pytest.CaptureFixture[str]) -> None:
    program = ["sh", "-c", "python3 -c 'from kfp import dsl; print(dsl.Dataset.schema_title)'"]
    assert run_container(client, built("base"), program, {}, **runner_arguments(read_only=[])) == 0
    assert capsys.readouterr().out == "system.Dataset\n"


def test_an_entry_point_does_not_swallow_the_command(client: docker.DockerClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f'FROM {built("base")}\nENTRYPOINT ["python3", "-c", "raise SystemExit(9)"]\n')
    docker_build("tritower/test-entrypoint:1", tmp_path)
    try:
        assert run_container(client, "tritower/test-entrypoint:1", ["true"], {}, **runner_arguments(read_only=[])) == 0
    finally:
        client.images.remove("tritower/test-entrypoint:1", force=True)


def test_torch_in_the_base_image_fails_its_smoke_check(tmp_path: Path) -> None:
    """A module called torch, planted into a copy of the base image, is found by the check that `make images` runs."""
    (tmp_path / "torch.py").write_text("")
    place = "/opt/tritower/lib/python3.11/site-packages/torch.py"
    (tmp_path / "Dockerfile").write_text(f"FROM {built('base')}\nCOPY torch.py {place}\n")
    environment = os.environ | {"TRITOWER_IMAGE_TAG": "test-planted-torch"}
    planted = f"{os.environ.get('TRITOWER_IMAGE_PREFIX', 'tritower')}/base:test-planted-torch"
    docker_build(planted, tmp_path)
    try:
        command = [sys.executable, "images/build.py", "check", "base"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode != 0
        assert "torch must not be installed" in done.stderr
    finally:
        subprocess.run(["docker", "image", "rm", "-f", planted], check=True)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log") / "log"
    command = [sys.executable, "-m", "tritower.simulate", "--out", str(folder), "--impressions", "20000", "--seed", "3"]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="module")
def train_image(client: docker.DockerClient) -> str:
    try:
        client.images.get(built("train"))
    except docker.errors.ImageNotFound:
        pytest.skip("NOT RUN: `make images` with train first")
    return built("train")


def test_the_label_of_train_says_which_build_of_torch_it_holds(
    client: docker.DockerClient, train_image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = ["python3", "-c", "import torch; print('cuda' if torch.version.cuda else 'cpu', torch.ones(2).sum().item())"]
    assert run_container(client, train_image, program, {}, **runner_arguments(read_only=[])) == 0
    assert capsys.readouterr().out == f"{client.images.get(train_image).labels['tritower.torch']} 2.0\n"


@pytest.fixture(scope="module")
def of_subprocesses(train_image: str, log: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Metrics of the pipeline in subprocesses, which compile kernels for the same processor as the images."""
    out = tmp_path_factory.mktemp("subprocesses")
    run(log, "--local", "--root", str(out / "root"), "--out", str(out))
    return read(out)


def run(log: Path | str, *options: str, environment: Mapping[str, str] = {}) -> None:
    tables = [part for name in ("jobs", "users") for part in (f"--{name}", f"{log}/{name}.parquet")]
    folders = [part for name in ("impressions", "truth") for part in (f"--{name}", f"{log}/{name}")]
    command = [sys.executable, "-m", "pipelines", "run", *tables, *folders, "--preset", "quick", *options]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | dict(environment))


def read(out: Path) -> dict[str, Any]:
    """metrics.json, the other results looked at."""
    assert (out / "recommendations.parquet").stat().st_size > 0
    assert "<html" in (out / "report.html").read_text()[:2000].lower()
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    assert all(0 < metrics["logged"]["model"][name] < 1 for name in ("auc", "map@1", "map@3"))
    return metrics


def test_containers_without_a_network_give_the_metrics_of_subprocesses(
    log: Path, of_subprocesses: dict[str, Any], tmp_path: Path
) -> None:
    run(log, "--docker", "--root", str(tmp_path / "root"), "--out", str(tmp_path / "out"))
    assert read(tmp_path / "out") == of_subprocesses


def test_containers_that_see_an_object_store_alone_give_the_same(
    client: docker.DockerClient, log: Path, of_subprocesses: dict[str, Any], tmp_path: Path
) -> None:
    """Data and pipeline root in S3; the containers have no mount, and no way out but to the host that runs the S3 server."""
    network = client.networks.create(f"tritower-test-{uuid.uuid4().hex[:8]}", internal=True)
    try:
        network.reload()
        host = network.attrs["IPAM"]["Config"][0]["Gateway"].split("/")[0]
        with s3_server(tmp_path / "server.log", host=host) as url, watched(client, network.name) as seen:
            # A CA file in the environment would be mounted.
            no_files = {"AWS_CA_BUNDLE": "", "TRITOWER_S3_CA_FILE": ""}
            store = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"} | no_files
            send(log, url)
            out = tmp_path / "out"
            where = ["--root", "s3://tritower/runs", "--network", network.name, "--out", str(out), "--no-cache"]
            run("s3://tritower/log", "--docker", *where, environment=store)
        assert read(out) == of_subprocesses
        # The one mount is the folder in which a step that fails leaves word of it.
        assert len(seen) > 5 and set(seen.values()) == {("/run/tritower",)}
    finally:
        network.remove()


def send(log: Path, url: str) -> None:
    s3 = s3_client(url)
    s3.create_bucket(Bucket="tritower")
    for file in log.rglob("*.parquet"):
        s3.upload_file(str(file), "tritower", f"log/{file.relative_to(log)}")


@contextlib.contextmanager
def watched(client: docker.DockerClient, network: str) -> Iterator[dict[str, tuple[str, ...]]]:
    """While the block runs, every container of a network and what is mounted into it."""
    seen: dict[str, tuple[str, ...]] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            for container in client.api.containers(filters={"network": network}):
                seen[container["Id"]] = tuple(mount["Destination"] for mount in container["Mounts"])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def test_a_container_compiles_nothing_and_may_have_any_user(client: docker.DockerClient) -> None:
    """The image's kernels are found by a process that may write to /tmp alone and whose user nobody knows."""
    program = (
        "import os, time; start = time.process_time()\n"
        "import numpy as np\n"
        "from tritower.metrics import auc\n"
        "rows = np.random.rand(1000).astype('float32'), np.random.rand(1000) < 0.5, np.arange(1000, dtype='int32')\n"
        "auc.without_each(*rows, 1000)\n"
        "print(os.getuid(), 'CPU seconds', time.process_time() - start)"
    )
    arguments = runner_arguments(read_only=[]) | {"user": "54321:0", "environment": {"NUMBA_DEBUG_CACHE": "1"}}
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert run_container(client, built("base"), ["python3", "-c", program], {}, **arguments) == 0
    assert "54321 CPU seconds" in output.getvalue()
    assert "data loaded from '/tmp/numba" in output.getvalue()
    assert "saved to" not in output.getvalue()


@pytest.fixture
def spark_image(client: docker.DockerClient) -> str:
    try:
        client.images.get(built("spark"))
    except docker.errors.ImageNotFound:
        pytest.skip("NOT RUN: `make image-spark` first")
    return built("spark")


def test_ingest_on_spark_runs_in_its_own_image(spark_image: str, log: Path, tmp_path: Path) -> None:
    """Without a network, on a read-only root; the dataset is the one that DuckDB gives here."""
    tables = {name: f"{log}/{name}.parquet" for name in ("jobs", "users")} | {"impressions": f"{log}/impressions"}

    @dsl.pipeline(name="ingesting")
    def ingesting(jobs: str, impressions: str, users: str, engine: str) -> dsl.Dataset:
        return ingest(jobs=jobs, impressions=impressions, users=users, engine=engine).outputs["dataset"]

    compiler.Compiler().compile(ingesting, str(tmp_path / "ingesting.yaml"))
    pipeline = compiling.for_engine(tmp_path / "ingesting.yaml", "spark", tmp_path / "pipeline")
    arguments = runner_arguments(read_only=[log])
    arguments["mounts"].append(user_names(tmp_path))
    outcome = local.run(pipeline, tables | {"engine": "spark"}, root=tmp_path / "root", containers=arguments)
    ingest_step.run(**tables, dataset=tmp_path / "dataset", config=IngestConfig())
    (made,) = (Path(uri) for uri in outcome.outputs.values())
    names = sorted(str(path.relative_to(made)) for path in made.rglob("*.parquet"))
    assert names == sorted(str(path.relative_to(tmp_path / "dataset")) for path in (tmp_path / "dataset").rglob("*.parquet"))
    for name in names:
        assert pq.read_table(made / name).equals(pq.read_table(tmp_path / "dataset" / name)), name


def test_the_spark_image_becomes_an_executor_and_runs_any_other_command(client: docker.DockerClient, spark_image: str) -> None:
    """The words and variables are those that Spark gives to a pod; there is no driver here to register with."""
    confined: dict[str, Any] = {
        "network_mode": "none", "read_only": True, "tmpfs": {"/tmp": "mode=1777,exec"}, "cap_drop": ["ALL"],
        "hostname": "executor", "extra_hosts": {"executor": "127.0.0.1"}, "remove": True, "stderr": True,
    }  # fmt: skip
    assert client.containers.run(spark_image, ["sh", "-c", "echo as it is"], **confined) == b"as it is\n"
    variables = {
        "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@127.0.0.1:7078", "SPARK_EXECUTOR_ID": "1",
        "SPARK_EXECUTOR_CORES": "1", "SPARK_EXECUTOR_MEMORY": "450m", "SPARK_APPLICATION_ID": "spark-1",
        "SPARK_EXECUTOR_POD_IP": "127.0.0.1", "SPARK_EXECUTOR_POD_NAME": "one", "SPARK_RESOURCE_PROFILE_ID": "0",
    }  # fmt: skip
    with pytest.raises(docker.errors.ContainerError, match=r"Connection refused: /127.0.0.1:7078"):
        client.containers.run(spark_image, ["executor"], environment=variables, **confined)


def test_spark_starts_under_any_user_that_is_given_a_name(
    client: docker.DockerClient,
    spark_image: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = "from tritower.engines.spark import SparkEngine\nprint(SparkEngine(threads=1).rows('SELECT 6 * 7 AS answer'))"
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    arguments = runner_arguments(read_only=[])
    assert run_container(client, spark_image, ["python3", "-c", program], {}, **arguments) == 1
    assert "Spark needs a name for the user id 54321 (in /etc/passwd)" in capsys.readouterr().out
    arguments["mounts"].append(user_names(tmp_path))
    assert run_container(client, spark_image, ["python3", "-c", program], {}, **arguments) == 0
    assert "[{'answer': 42}]" in capsys.readouterr().out


def test_a_spark_image_without_java_fails_its_smoke_check(spark_image: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {spark_image}\nUSER 0\nRUN rm -rf /usr/lib/jvm\nUSER 1000:0\n")
    environment = os.environ | {"TRITOWER_IMAGE_TAG": "test-without-java"}
    broken = f"{spark_image.rpartition(':')[0]}:test-without-java"
    docker_build(broken, tmp_path)
    try:
        command = [sys.executable, "images/build.py", "check", "spark"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode != 0
        assert "spark: " in done.stderr and "imports as expected" not in done.stdout
    finally:
        subprocess.run(["docker", "image", "rm", "-f", broken], check=True)


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="NOT RUN: no NVIDIA GPU here")
def test_a_gpu_passes_through(client: docker.DockerClient, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = runner_arguments(read_only=[], gpus=True)
    assert run_container(client, built("train"), ["nvidia-smi", "-L"], {}, **arguments) == 0
    assert "GPU 0" in capsys.readouterr().out
