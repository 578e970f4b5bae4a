"""Pipelines, compiled as any other, to test how pipelines are run: of two steps, with a verdict, and one that holds the first.

On a real backend their image must be one that it can pull, with kfp and tritower in it: TRITOWER_TOY_IMAGE.
"""

import os
from pathlib import Path
from typing import NamedTuple

from kfp import compiler, dsl
from kfp.dsl import Dataset, Input, Output

IMAGE = os.environ.get("TRITOWER_TOY_IMAGE", "tritower/base:0")


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def double(text: str, doubled: Output[Dataset], seconds: float = 0.0) -> None:
    import logging
    import time
    from pathlib import Path

    time.sleep(seconds)

    logging.getLogger("toy").info("doubling %s", text)
    if len(text) == 2:
        logging.getLogger("toy").warning("%s is short\nand this is its second line", text)
    Path(doubled.path).write_text(text * 2)
    doubled.metadata["letters"] = len(text) * 2


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def check(doubled: Input[Dataset], copy: Output[Dataset], limit: int = 10) -> None:
    from pathlib import Path

    from tritower.errors import DataError

    text = Path(doubled.path).read_text()
    print("Task 'double' finished with status FAILURE")  # what a step prints must not be taken for kfp's own word
    if len(text) > limit:
        raise DataError("the text is too long", where=text, remedy="Shorten it.")
    Path(copy.path).write_text(text)


class Verdict(NamedTuple):
    """What `judged` hands back."""

    gate: str
    gate_reason: str


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def judge(word: str, why: str) -> NamedTuple("Outputs", word=str, why=str):  # type: ignore[valid-type]
    return word, why


@dsl.pipeline(name="toy", description="Doubles a text.\n\nAnd checks how long it is.")
def toy(text: str, limit: int = 10, seconds: float = 0.0) -> dsl.Dataset:
    task = check(doubled=double(text=text, seconds=seconds).outputs["doubled"], limit=limit)
    task.set_display_name("checked")
    return task.outputs["copy"]


@dsl.pipeline(name="judged")
def judged(word: str, why: str) -> Verdict:
    task = judge(word=word, why=why)
    return Verdict(gate=task.outputs["word"], gate_reason=task.outputs["why"])


@dsl.pipeline(name="outer")
def outer(text: str, limit: int = 10) -> dsl.Dataset:
    judge(word=text, why="on its own")
    return toy(text=text, limit=limit, seconds=0.0).output


def compiled(folder: Path, pipeline: dsl.base_component.BaseComponent = toy) -> Path:
    path = folder / f"{pipeline.name}.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return path
