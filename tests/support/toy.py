"""A pipeline of two steps, compiled as any other, to test how pipelines are run."""

from pathlib import Path

from kfp import compiler, dsl
from kfp.dsl import Dataset, Input, Output


@dsl.component(base_image="tritower/base:0", install_kfp_package=False)
def double(text: str, doubled: Output[Dataset]) -> None:
    import logging
    from pathlib import Path

    logging.getLogger("toy").info("doubling %s", text)
    if len(text) == 2:
        logging.getLogger("toy").warning("%s is short\nand this is its second line", text)
    Path(doubled.path).write_text(text * 2)
    doubled.metadata["letters"] = len(text) * 2


@dsl.component(base_image="tritower/base:0", install_kfp_package=False)
def check(doubled: Input[Dataset], copy: Output[Dataset], limit: int = 10) -> None:
    from pathlib import Path

    from tritower.errors import DataError

    text = Path(doubled.path).read_text()
    print("Task 'double' finished with status FAILURE")  # what a step prints must not be taken for kfp's own word
    if len(text) > limit:
        raise DataError("the text is too long", where=text, remedy="Shorten it.")
    Path(copy.path).write_text(text)


@dsl.pipeline(name="toy")
def toy(text: str, limit: int = 10) -> dsl.Dataset:
    task = check(doubled=double(text=text).outputs["doubled"], limit=limit)
    task.set_display_name("checked")
    return task.outputs["copy"]


def compiled(folder: Path) -> Path:
    path = folder / "toy.yaml"
    compiler.Compiler().compile(toy, str(path))
    return path
