"""The wheelhouse takes one build of torch with all that it needs, and the images are named after it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tritower import __version__

from tests.support.wheels import torch_release, wheel

# Answers as an engine that has the images in `$HERE/images`, and builds by adding to them.
ENGINE = """#!/bin/sh
HERE=$(dirname "$0")
case "$1 $2" in
"--version ") echo "Docker version VERSION, build 0";;
"buildx version") BUILDX;;
"image inspect") grep -q "^$5$" "$HERE/images" && echo "sha256:$(printf %s "$5" | md5sum | cut -c1-32)";;
"build --quiet")
    echo "BUILDKIT=$DOCKER_BUILDKIT $*" >>"$HERE/calls"
    while [ "$1" != -t ]; do shift; done
    echo "$2" >>"$HERE/images"
    ls "$5" >>"$HERE/calls";;
"info "|"builder prune") ;;
*) echo "unexpected: $*" >&2; exit 64;;
esac
"""


def build(checkout: Path, verb: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "TRITOWER_", "BASE_IMAGE", "TORCH_"))
    }
    settings = kept | {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"} | environment
    command = [sys.executable, "images/build.py", verb, *words]
    return subprocess.run(command, cwd=checkout, env=settings, capture_output=True, text=True, check=False)


def filled(checkout: Path, indexes: dict[str, str], torch: str = "") -> subprocess.CompletedProcess[str]:
    """`make wheelhouse` for train, with torch from another index."""
    return build(checkout, "wheelhouse", "train", PIP_INDEX_URL=indexes["pypi"], TORCH_INDEX=torch and indexes[torch])


def held(checkout: Path) -> list[str]:
    return sorted(re.sub(r"-py3-none-any\.whl$", "", file.name) for file in (checkout / "wheelhouse").glob("*.whl"))[:-1]


def stocked(checkout: Path, indexes: dict[str, str], torch: str = "pypi") -> None:
    """A wheelhouse as `make wheelhouse` leaves it, in a moment."""
    place = checkout / "wheelhouse"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for index in {"pypi", torch}:
        for file in Path(indexes[index].removeprefix("file://")).glob("*/*.whl"):
            if index == torch or not file.name.startswith("torch-"):
                shutil.copy2(file, place)
    wheel(place / "own", "tritower", __version__)
    (own,) = place.glob("own/*/*.whl")
    own.rename(place / own.name)


def test_each_build_of_torch_comes_with_what_it_needs(checkout: Path, indexes: dict[str, str]) -> None:
    release = torch_release()
    done = filled(checkout, indexes, "cpu")
    assert done.returncode == 0, done.stderr
    assert held(checkout) == ["filelock-4.0", f"torch-{release}+cpu"]
    assert re.search(r"^train: 2 wheels, .*, torch's CPU build$", done.stdout, flags=re.MULTILINE)
    # Another index is another build: the wheel that is there is not taken for it.
    done = filled(checkout, indexes)
    assert f"torch-{release}+cpu-py3-none-any.whl came from another index and is taken anew" in done.stdout
    assert held(checkout) == ["cuda_toolkit-13.0.3.0", "filelock-4.0", f"torch-{release}"]
    assert re.search(r"^train: 3 wheels, .*, torch's CUDA build$", done.stdout, flags=re.MULTILINE)


def test_a_build_for_another_cuda_is_refused_by_what_it_needs(checkout: Path, indexes: dict[str, str]) -> None:
    done = filled(checkout, indexes, "other")
    assert done.returncode == 1
    assert "needs nvidia-cublas-cu12, which the lock does not have" in done.stderr


def test_two_builds_of_torch_are_one_too_many(checkout: Path, indexes: dict[str, str], tmp_path: Path) -> None:
    stocked(checkout, indexes, "cpu")
    (file,) = (checkout / "wheelhouse").glob("torch-*.whl")
    file.with_name(file.name.replace("+cpu", "")).write_bytes(file.read_bytes())
    done = built(checkout, engine(tmp_path / "docker", "28.0.0", buildx=True, images=("python:3.11-slim",)))
    assert re.search(r"^two builds of torch in .*: torch-\S+ and torch-\S+\. Remove one of them\.$", done.stderr)


def test_a_wheel_whose_download_was_cut_is_taken_anew(checkout: Path, indexes: dict[str, str], tmp_path: Path) -> None:
    stocked(checkout, indexes, "cpu")
    file = checkout / "wheelhouse/filelock-4.0-py3-none-any.whl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])
    done = built(checkout, engine(tmp_path / "docker", "28.0.0", buildx=True, images=("python:3.11-slim",)))
    assert re.fullmatch(r"\S+/filelock-4\.0-\S+ is not whole: run `make wheelhouse` where there is a network\n", done.stderr)
    done = filled(checkout, indexes, "cpu")
    assert "filelock-4.0-py3-none-any.whl is not whole and is taken anew" in done.stdout
    assert file.read_bytes() == whole


def test_an_index_with_a_password_is_neither_shown_nor_kept(checkout: Path, indexes: dict[str, str]) -> None:
    index = "http://reader:pa55word@127.0.0.1:1/simple"
    done = build(checkout, "wheelhouse", "train", PIP_INDEX_URL=indexes["pypi"], TORCH_INDEX=index)
    assert done.returncode == 1
    assert "pa55word" not in done.stdout + done.stderr
    assert not [file for file in (checkout / "wheelhouse").iterdir() if b"pa55word" in file.read_bytes()]


def engine(folder: Path, version: str, *, buildx: bool, images: tuple[str, ...] = ()) -> Path:
    folder.mkdir()
    (folder / "images").write_text("".join(f"{image}\n" for image in images))
    program = folder / "docker"
    program.write_text(ENGINE.replace("VERSION", version).replace("BUILDX", "echo buildx" if buildx else "exit 1"))
    program.chmod(0o755)
    return folder


def built(checkout: Path, *clients: Path) -> subprocess.CompletedProcess[str]:
    # Without Docker's own clients on PATH.
    path = os.pathsep.join([*map(str, clients), str(clients[0].parent / "tools")])
    (clients[0].parent / "tools").mkdir(exist_ok=True)
    for tool in ("sh", "grep", "md5sum", "cut", "dirname", "ls"):
        link = clients[0].parent / "tools" / tool
        if not link.exists():
            link.symlink_to(Path("/usr/bin") / tool)
    return build(checkout, "build", "train", PATH=path, TRITOWER_IMAGE_TAG="1")


def test_layers_of_the_two_builds_have_names_of_their_own(checkout: Path, indexes: dict[str, str], tmp_path: Path) -> None:
    docker = engine(tmp_path / "docker", "28.0.0", buildx=True, images=("python:3.11-slim",))
    labels, contexts = {}, {}
    for kind, index in (("cuda", "pypi"), ("cpu", "cpu")):
        stocked(checkout, indexes, index)
        (docker / "calls").write_text("")
        done = built(checkout, docker)
        assert done.returncode == 0, done.stderr
        calls = (docker / "calls").read_text()
        (labels[kind],) = re.findall(r"-t (tritower/train-packages:\S+)", calls)
        assert labels[kind].startswith(f"tritower/train-packages:{kind}-")
        assert f"PARENT={labels[kind]} " in calls and f"TORCH={kind} " in calls and "BUILDKIT=1 " in calls
        contexts[kind] = calls
    assert labels["cuda"] != labels["cpu"]
    assert "cuda_toolkit-" in contexts["cuda"] and "cuda_toolkit-" not in contexts["cpu"]
    # The layer of packages is there now: only tritower's own is built.
    (docker / "calls").write_text("")
    built(checkout, docker)
    assert re.findall(r"-t (\S+)", (docker / "calls").read_text()) == ["tritower/train:1"]
    assert json.loads((checkout / "build/images/built.json").read_text()) == {"train": "tritower/train:1"}


def test_a_base_that_was_made_here_is_what_images_lie_on(checkout: Path, indexes: dict[str, str], tmp_path: Path) -> None:
    stocked(checkout, indexes)
    both = ("python:3.11-slim", "tritower/python:3.11-bookworm")
    for name, images, base in (("slim", both[:1], both[0]), ("made", both, both[1])):
        docker = engine(tmp_path / name, "28.0.0", buildx=True, images=images)
        assert built(checkout, docker).returncode == 0
        first, *_ = re.findall(r"PARENT=(\S+)", (docker / "calls").read_text())
        assert first == base


def test_a_client_without_buildkit_is_passed_over(checkout: Path, indexes: dict[str, str], tmp_path: Path) -> None:
    stocked(checkout, indexes)
    images = ("python:3.11-slim",)
    new, old = (
        engine(tmp_path / "new", "28.2.2", buildx=False, images=images),
        engine(tmp_path / "old", "20.10.24", buildx=False),
    )
    done = built(checkout, new)
    assert done.returncode == 1
    assert re.search(r"^no docker client here can use BuildKit\. Needed is Docker Engine 20\.10 or newer", done.stderr)
    assert built(checkout, new, old).returncode == 0
    assert not (new / "calls").exists()
    assert "BUILDKIT=1" in (old / "calls").read_text()


def test_without_docker_one_line_says_what_is_needed(checkout: Path, tmp_path: Path) -> None:
    for verb in ("build", "check"):
        done = build(checkout, verb, "base", PATH=str(tmp_path))
        assert done.returncode == 1
        assert re.fullmatch(r"docker is not installed\. Needed is Docker Engine 20\.10 .*\n", done.stderr)


def test_an_engine_that_does_not_run_is_one_line_and_its_remedy(checkout: Path, tmp_path: Path) -> None:
    docker = engine(tmp_path / "docker", "28.0.0", buildx=True)
    program = (docker / "docker").read_text().replace('"info "|', '"info ") echo "Cannot connect" >&2; exit 1;;\n')
    (docker / "docker").write_text(program)
    done = built(checkout, docker)
    assert done.returncode == 1
    assert done.stderr.startswith("no Docker engine answers: Cannot connect\nStart it (")


def test_a_base_image_needs_root_and_debootstrap(checkout: Path, tmp_path: Path) -> None:
    docker = engine(tmp_path / "docker", "28.0.0", buildx=True)
    # The real user id alone: as root, the files stay readable.
    program = (
        "import os, runpy, sys; os.getuid() or os.setresuid({}, 0, 0); runpy.run_path('images/build.py', run_name='__main__')"
    )
    for user, said in (
        (65534, "debootstrap needs root: "),
        (0, "debootstrap is not installed. Needed is debootstrap (tried: "),
    ):
        if user == os.getuid() or os.getuid() == 0:
            command = [sys.executable, "-c", f"import sys; sys.path[0] = 'images'; {program.format(user)}", "base-image"]
            environment = os.environ | {"PATH": f"{docker}:{tmp_path / 'tools'}"}
            built(checkout, docker)  # makes the folder of tools
            done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 1
            assert done.stderr.startswith(said), done.stderr
