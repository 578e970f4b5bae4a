"""Kernels: the images and a run on this machine name the same; a user's own setting wins, library by library."""

import os
import re
from pathlib import Path

import pytest

from pipelines import kernels

CPU = Path("/proc/cpuinfo")


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in kernels.IMAGES:
        monkeypatch.delenv(name, raising=False)


def named() -> dict[str, str]:
    return {name: os.environ[name] for name in kernels.IMAGES if name in os.environ}


def usual() -> dict[str, str]:
    flags = CPU.read_text() if CPU.exists() else ""
    return kernels.IMAGES if "avx2" in flags and "bmi2" in flags else {}


def test_the_images_name_the_same() -> None:
    dockerfile = (Path(__file__).parents[2] / "images/Dockerfile").read_text()
    assert dict(re.findall(r"(NUMBA_CPU_\w+|OPENBLAS_\w+)=(\S+)", dockerfile)) == kernels.IMAGES


def test_they_are_set_for_a_run_and_taken_back() -> None:
    with kernels.as_in_the_images():
        assert named() == usual()
    assert not named()


@pytest.mark.parametrize(
    ("name", "value", "left"), [("NUMBA_CPU_NAME", "generic", kernels.OPENBLAS), ("OPENBLAS_CORETYPE", "Zen", kernels.NUMBA)]
)
def test_a_users_own_setting_wins_for_its_library_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, left: dict[str, str]
) -> None:
    monkeypatch.setenv(name, value)
    with kernels.as_in_the_images():
        assert named() == {name: value} | (left if usual() else {})
    assert named() == {name: value}


def test_what_containers_are_told_is_what_the_user_has_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not kernels.of_the_user()
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Zen")
    assert kernels.of_the_user() == {"OPENBLAS_CORETYPE": "Zen"}
