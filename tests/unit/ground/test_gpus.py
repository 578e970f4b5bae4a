from pathlib import Path

import pytest
from tritower import gpus
from tritower.errors import ConfigError


def test_more_processes_than_gpus_are_refused_with_both_numbers() -> None:
    with pytest.raises(
        ConfigError, match=r"4 process\(es\) on one machine take a GPU each, and 2 GPU\(s\) are visible"
    ) as caught:
        gpus.check(4, 2)
    assert "at most 2" in caught.value.remedy and caught.value.where == "processes"
    gpus.check(2, 2)
    gpus.check(4, 0)  # on CPUs
    with pytest.raises(ConfigError, match=r"1 process\(es\) .* and 0 GPU\(s\) are visible"):
        gpus.check(1, 0, needed=True, where="launch.processes")


def test_a_gpu_that_torch_cannot_use_is_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    proc = tmp_path / "version"
    proc.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  gcc 12\n"
    )
    (tmp_path / "nvidiactl").touch()
    assert gpus.unused("13.0", dev=tmp_path, proc=proc) == ""  # none was given to this container
    (tmp_path / "nvidia0").touch()
    assert "the driver is 550.54.15, CUDA 13 needs 580 or newer" in gpus.unused("13.0", dev=tmp_path, proc=proc)
    assert "the driver is unknown" in gpus.unused("13.0", dev=tmp_path, proc=tmp_path / "none")
    assert gpus.unused(None, dev=tmp_path, proc=proc) == "a GPU is here, but this torch is built for CPUs"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.unused("13.0", dev=tmp_path, proc=proc) == ""  # hidden on purpose
