"""One lock for both builds of torch: tools/lock.py beside builds that a folder of metadata stands in front of the real one."""

import os
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CUDA = ('cuda-toolkit[runtime]==13.0.3; platform_system == "Linux"', 'nvidia-nccl-cu12; platform_system == "Linux"')


def environment(folder: Path, *torch_needs: str, **packages: tuple[str, ...]) -> Path:
    """A folder of metadata: torch as installed here, what a CPU build needs and `torch_needs`; and more packages."""
    either = [text for text in distribution("torch").requires or () if "platform_system" not in text]
    release = distribution("torch").version.split("+")[0]
    for name, (version, *needs) in {"torch": (release, *either, *torch_needs), **packages}.items():
        place = folder / f"{name}-{version}.dist-info"
        place.mkdir(parents=True)
        lines = ["Metadata-Version: 2.1", f"Name: {name.replace('_', '-')}", f"Version: {version}", "Provides-Extra: runtime"]
        (place / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {text}" for text in needs)]) + "\n")
    return folder


@pytest.fixture
def cuda_build(tmp_path: Path) -> Path:
    """Two packages of a CUDA build: one needed by the other's extra; and NCCL, which xgboost needs as well."""
    needs = ("13.0.3.0", 'made-up-runtime==13.*; extra == "runtime"')
    return environment(tmp_path / "cuda", *CUDA, cuda_toolkit=needs, made_up_runtime=("13.0.96",))


@pytest.fixture
def cpu_build(tmp_path: Path) -> Path:
    return environment(tmp_path / "cpu")


def lock(build: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(build), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "tools/lock.py", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)


def part(file: Path, header: str) -> list[str]:
    found = re.search(rf"^# {header}.*\n((?:[a-z].*\n)*)", file.read_text(), flags=re.MULTILINE)
    return found[1].splitlines() if found else []


def test_a_lock_of_the_cuda_build_holds_beside_either_build(cuda_build: Path, cpu_build: Path, tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text((ROOT / "constraints.txt").read_text())
    assert lock(cuda_build, file).returncode == 0
    assert part(file, "What torch") == ["cuda-toolkit==13.0.3.0", "made-up-runtime==13.0.96"]
    assert "nvidia-nccl-cu12" in "".join(part(file, "Exact"))
    for build in (cuda_build, cpu_build):
        done = lock(build, "--check", file)
        assert done.returncode == 0, done.stdout + done.stderr
    # Writing it beside a CPU build loses nothing.
    before = file.read_text()
    done = lock(cpu_build, file)
    assert "from a CPU build of torch; kept as they were: the packages under cuda" in done.stdout
    assert file.read_text() == before


def test_beside_a_cuda_build_its_packages_must_be_installed_and_locked(cuda_build: Path, tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text((ROOT / "constraints.txt").read_text())
    lock(cuda_build, file)
    text = file.read_text()
    file.write_text(text.replace("made-up-runtime==13.0.96\n", ""))
    assert "made-up-runtime 13.0.96 is installed but not locked" in lock(cuda_build, "--check", file).stdout
    file.write_text(text.replace("made-up-runtime==13.0.96", "made-up-runtime==13.0.95\nmade-up-rest==1"))
    done = lock(cuda_build, "--check", file)
    assert done.returncode == 1
    assert "made-up-runtime: locked 13.0.95, installed 13.0.96" in done.stdout
    assert "made-up-rest is locked under cuda, where nothing needs it" in done.stdout
    file.write_text("made-up-runtime==13.0.96\n" + text.replace("made-up-runtime==13.0.96\n", ""))
    assert "made-up-runtime belongs under cuda" in lock(cuda_build, "--check", file).stdout
    (cuda_build / "made_up_runtime-13.0.96.dist-info" / "METADATA").unlink()
    (cuda_build / "made_up_runtime-13.0.96.dist-info").rmdir()
    assert "not installed: made-up-runtime" in lock(cuda_build, "--check", file).stderr


@pytest.mark.parametrize("edit", [(r"^# What torch \S+ ", "# What torch 1.0.0 "), (r"(?s)^# What torch.*?\n\n", "")])
def test_a_cpu_build_cannot_hide_that_the_cuda_part_is_of_another_release_or_missing(
    cpu_build: Path, tmp_path: Path, edit: tuple[str, str]
) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text(re.sub(*edit, (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    done = lock(cpu_build, "--check", file)
    assert done.returncode == 1
    assert "run `make lock` where" in done.stdout


def test_the_committed_lock_and_the_images_name_the_same_cuda_packages() -> None:
    named = [line.split()[0] for line in (ROOT / "images/train/requirements-cuda.txt").read_text().splitlines()]
    assert named == part(ROOT / "constraints.txt", "What torch")
    assert len(named) > 10
