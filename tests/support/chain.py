"""A pipeline of three steps with folders between them, to test the cache; run as a program, it is a process to be killed.

python -m tests.support.chain PIPELINE ROOT ARGUMENTS(JSON)
"""

import json
import sys
from pathlib import Path
from typing import Any

from kfp import compiler, dsl
from kfp.dsl import Dataset, Input, Output


@dsl.component(base_image="tritower/base:0", install_kfp_package=False)
def first(place: str, made: Output[Dataset], config: dict[str, Any] = {}) -> None:  # noqa: B006 - as in every component
    import os
    import time
    from pathlib import Path

    from tritower import storage

    with storage.atomic_directory(made.path) as folder:
        files = storage.list_files(place) if place else []
        (folder / "all").write_text("".join(Path(file).read_text() for file in files) + str(config.get("word", "")))
        (folder / "sub").mkdir()
        (folder / "sub" / "more").write_text("more")
    if config.get("cache"):
        Path(config["cache"]).mkdir(exist_ok=True)
        (Path(config["cache"]) / str(os.getpid())).touch()
    made.metadata["letters"] = (Path(made.path) / "all").stat().st_size
    if os.environ.get("CHAIN_HANGS_IN") == "first":
        print("hanging", flush=True)
        time.sleep(60)


@dsl.component(base_image="tritower/base:0", install_kfp_package=False)
def second(made: Input[Dataset], again: Output[Dataset], upper: Output[Dataset]) -> None:
    import os
    import time
    from pathlib import Path

    from tritower import storage

    with storage.atomic_directory(again.path) as folder:
        (folder / "all").write_text((Path(made.path) / "all").read_text())
    if os.environ.get("CHAIN_HANGS_IN") == "second":
        print("hanging", flush=True)
        time.sleep(60)
    Path(upper.path).write_text((Path(made.path) / "all").read_text().upper())


@dsl.component(base_image="tritower/base:0", install_kfp_package=False)
def third(again: Input[Dataset], model: Input[Dataset], last: Output[Dataset]) -> None:
    import os
    import time
    from pathlib import Path

    text = (Path(again.path) / "all").read_text() + (Path(model.path) / "weights").read_text()
    Path(last.path).write_text(text)
    if os.environ.get("CHAIN_HANGS_IN") == "third":
        print("hanging", flush=True)
        time.sleep(60)


@dsl.pipeline(name="chain")
def chain(place: str = "", model: str = "", config: dict[str, Any] = {}) -> dsl.Dataset:  # noqa: B006
    imported = dsl.importer(artifact_uri=model, artifact_class=dsl.Dataset).output
    task = second(made=first(place=place, config=config).outputs["made"])
    return third(again=task.outputs["again"], model=imported).outputs["last"]


def compiled(folder: Path) -> Path:
    path = folder / "chain.yaml"
    compiler.Compiler().compile(chain, str(path))
    return path


if __name__ == "__main__":
    from pipelines import local

    outcome = local.run(
        Path(sys.argv[1]),
        json.loads(sys.argv[3]),
        root=Path(sys.argv[2]),
        report=lambda step: print(step.name, step.status, file=sys.__stdout__, flush=True),
    )
    print(json.dumps([[step.name, step.status] for step in outcome.steps]))
