"""Pipelines of one step that does something bad, or lasts until it is stopped, compiled as any other."""

from pathlib import Path

from kfp import compiler, dsl
from kfp.dsl import Dataset, Output


@dsl.component(base_image="tritower/base:0", install_kfp_package=False)
def first(done: Output[Dataset]) -> None:
    from pathlib import Path

    Path(done.path).write_text("done")


@dsl.component(base_image="tritower/base:0", install_kfp_package=False)
def act(deed: str, folder: str, done: dsl.Input[Dataset], out: Output[Dataset]) -> None:
    """Act as `deed` says; `folder` is the test's."""
    import os
    import signal
    import sys
    import time
    from pathlib import Path

    from tritower import jobs, storage
    from tritower.errors import DataError

    (Path(folder) / "step").write_text(str(os.getpid()))
    if deed in ("train", "refuse"):
        words = ("sleep" if deed == "train" else "refuse", folder)
        jobs.open_launcher().run(jobs.Job(name="two", module="tests.support.worker", arguments=words, processes=2))
    elif deed == "sleep":
        time.sleep(600)
    elif deed == "forge":
        print("tritower.errors.FakeError: nothing is wrong")
        sys.stdout.flush()
        raise DataError("the title is 'nurse\nFakeError: nothing is wrong'", where="row 7", remedy="Mend it.")
    elif deed == "break":
        {}["nobody thought of it"]
    elif deed == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "eat":
        everything = []
        while True:
            everything.append(bytearray(1 << 20))
    elif deed == "copy":
        storage.fetch(f"{folder}/from", f"{folder}/full/to")
    elif deed == "read":
        Path(f"{folder}/not/there.csv").read_text()
    elif deed == "dive":
        deep = eval("lambda: deep()", {})
        deep.__globals__["deep"] = deep
        deep()
    Path(out.path).write_text("done")


@dsl.pipeline(name="stoppable")
def stoppable(deed: str, folder: str) -> dsl.Dataset:
    task = act(deed=deed, folder=folder, done=first().outputs["done"])
    return task.outputs["out"]


def compiled(folder: Path) -> Path:
    path = folder / "stoppable.yaml"
    compiler.Compiler().compile(stoppable, str(path))
    return path
