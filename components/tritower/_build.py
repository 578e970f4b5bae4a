"""How every component is built: one decorator, one image name and tag.

Images are tagged with an immutable tag (version, and git commit in a release build), never `latest`: KFP's cache key
holds the image string, and thin components keep their code out of the YAML.

Set at compile time:
    TRITOWER_IMAGE_PREFIX   registry and path before the image name; default `tritower`
    TRITOWER_IMAGE_TAG      default: the package version; a run in containers on the machine that built the images then takes
                            what was built last (`pipelines/containers.py`)
    TRITOWER_IMAGES         a JSON file: image -> its whole name, with a digest, say; before the two (`make publish`)
    TRITOWER_ENGINE_IMAGE   `spark` for pipelines that take `engine = spark`: ingest and features then run in the image that has
                            PySpark and Java, and can do both; default `base`, which can do duckdb only
"""

import json
import os
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from kfp import dsl

from tritower import __version__
from tritower.errors import ConfigError

Image = Literal["base", "train", "serve", "spark"]
_EXECUTOR = ("-m kfp.dsl.executor_main", "-m tritower.child --step kfp.dsl.executor_main")
F = TypeVar("F", bound=Callable[..., Any])


def image_name(image: Image) -> str:
    """Full name of one of tritower's images, such as `tritower/base:0.1.0`.

    Raises:
        ConfigError: TRITOWER_IMAGES lacks the image.
    """
    if file := os.environ.get("TRITOWER_IMAGES"):
        names: dict[str, str] = json.loads(Path(file).read_text(encoding="utf-8"))
        if image not in names:
            raise ConfigError(
                f"the image {image!r} has no name", where=file, remedy=f"Publish it as well: IMAGES='... {image}'."
            )
        return names[image]
    prefix = (os.environ.get("TRITOWER_IMAGE_PREFIX") or "tritower").rstrip("/")
    tag = os.environ.get("TRITOWER_IMAGE_TAG") or __version__
    return f"{prefix}/{image}:{tag}"


def engine_image() -> Image:
    """The image of the steps that work with an engine: `base`, or `spark` where TRITOWER_ENGINE_IMAGE says so."""
    return "spark" if os.environ.get("TRITOWER_ENGINE_IMAGE") == "spark" else "base"


def component(image: Image, *, launched: bool = False) -> Callable[[F], Any]:
    """A KFP component whose body imports the tritower installed in `image`; nothing is installed at run time.

    Args:
        image: `base` for CPU steps and launchers, `train` where torch is needed.
        launched: the step can start a job whose pods are to have what the pipeline gives its own: node selectors, tolerations,
            affinity, resources, variables, volumes. It takes them as a parameter of the type TaskConfig.

    Raises:
        ConfigError: an input artifact is `Optional[Input[...]]`.
    """

    def build(function: F) -> Any:
        if os.environ.get("_KFP_RUNTIME") == "true":  # within a step: kfp has no compiler there
            return function
        _refuse_optional_artifacts(function)
        # The step's pod has them as well: the same graph works with the launcher `local`, and needs them there.
        passed = [dsl.TaskConfigPassthrough(field=one, apply_to_task=True) for one in dsl.TaskConfigField] if launched else None
        made = dsl.component(base_image=image_name(image), install_kfp_package=False, task_config_passthroughs=passed)(function)
        container = made.component_spec.implementation.container
        *shell, source = (part.replace(*_EXECUTOR) for part in container.command)
        container.command = [*shell, _imported(function) or source]
        return made

    return build


def _imported(function: Callable[..., Any]) -> str:
    """In place of a component's source: an import of it, for the image has it; empty for one of another package.

    A backend writes the source into seven fields of a run's Workflow. Beyond 1 MiB Argo compresses its nodes, and the
    API knows no tasks of that run any more.
    """
    package = __name__.partition(".")[0]
    return f"from {function.__module__} import {function.__name__}\n" if function.__module__.startswith(f"{package}.") else ""


def _refuse_optional_artifacts(function: Callable[..., Any]) -> None:
    """A backend passes input artifacts without their type, so the SDK makes them by calling the annotation.

    `Input[Model]` can be called, a union cannot. A default of None is enough for the compiler.
    """
    for name, hint in function.__annotations__.items():
        origin: Any = typing.get_origin(hint)
        options = typing.get_args(hint) if origin in (typing.Union, types.UnionType) else ()
        if any(typing.get_origin(option) is typing.Annotated for option in options):
            raise ConfigError(
                "an optional input artifact cannot be made on a backend (Cannot instantiate typing.Union)",
                where=f"{function.__name__}.{name}",
                remedy=f"Write `{name}: Input[...] = None`, without Optional.",
            )
