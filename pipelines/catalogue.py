"""Every component alone, for pipelines of others: `components/catalogue/<component>/`, and the interface in its room's README.

`component.yaml` is what `kfp.components.load_component_from_file` reads, `metadata.yaml` what a catalogue of components shows.
All of it follows from the component's signature and docstring. The folder lies beside the package, not in it: what is generated
from code is no part of the code's version.
"""

import importlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docstring_parser
import tritower
import yaml
from kfp import compiler, dsl
from tritower import storage
from tritower.errors import ArtifactError

from pipelines import compiling

PACKAGE = Path(tritower.__file__).parent
FOLDER = PACKAGE.parent / "catalogue"
KFP = ">=2.15"
_BEGIN, _END = "<!-- interface: written by `make compile` -->", "<!-- end of interface -->"
_IMAGE = re.compile(r"/(\w+):[^/]*$")


def components() -> dict[str, tuple[str, Any]]:
    """Component name -> its room and the component, in the order of rooms."""
    found = {}
    for file in sorted(PACKAGE.glob("*/component.py")):
        module = importlib.import_module(f"tritower.{file.parent.name}.component")
        for name, value in vars(module).items():
            if isinstance(value, dsl.base_component.BaseComponent):
                assert name not in found, f"two components are called {name}"
                found[name] = (file.parent.name, value)
    return found


def write(folder: Path = FOLDER) -> list[Path]:
    """Write the catalogue and the READMEs' interfaces; the paths of the catalogue's component files."""
    for name, text in _texts(components()).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write_text(path, text)
    for readme, text in _readmes().items():
        storage.write_text(readme, text)
    return compile_all(folder)


def compile_all(folder: Path) -> list[Path]:
    """Write `<component>/component.yaml` of every component; the paths."""
    return [_compiled(folder, name, one) for name, (_, one) in components().items()]


def check(folder: Path = FOLDER) -> None:
    """Compare with what is kept; registry and tag of the images apart.

    Raises:
        ArtifactError: a file is missing, superfluous or differs.
    """
    kept = {str(path.relative_to(folder)) for path in folder.rglob("*.yaml")}
    texts, known = _texts(components()), components()
    differing = [str(readme) for readme, text in _readmes().items() if readme.read_text(encoding="utf-8") != text]
    differing += sorted(kept - texts.keys() - {f"{name}/component.yaml" for name in known})
    differing += [name for name, text in texts.items() if name not in kept or (folder / name).read_text("utf-8") != text]
    with tempfile.TemporaryDirectory() as scratch:
        for name, (_, one) in known.items():
            path = folder / name / "component.yaml"
            if not path.is_file() or compiling.canonical(path) != compiling.canonical(_compiled(Path(scratch), name, one)):
                differing.append(str(path))
    if differing:
        remedy = "Run `make compile` and commit the result."
        raise ArtifactError(f"{differing[0]} is not what the component's source gives", where=str(folder), remedy=remedy)


def _compiled(folder: Path, name: str, component: Any) -> Path:
    path = folder / name / "component.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(component, str(path))
    return path


def _texts(known: Mapping[str, tuple[str, Any]]) -> dict[str, str]:
    """Path below the catalogue -> content, of what has one text whatever the images' registry."""
    return {f"{name}/metadata.yaml": _metadata(room, component) for name, (room, component) in known.items()}


def _metadata(room: str, component: Any) -> str:
    spec = component.component_spec
    facts = {
        "name": spec.name,
        "description": _sentence(spec.description),
        "source": f"tritower.{room}.component",
        "version": tritower.__version__,
        "image": _image(spec),
        "stability": "beta",
        "dependencies": {"kubeflow": [{"name": "Pipelines", "version": KFP}]},
        "tags": [room.replace("_", "-")],
    }
    return yaml.safe_dump(facts, sort_keys=False, width=1000)


def _readmes() -> dict[Path, str]:
    """README -> its text with the interfaces of the room's components."""
    texts, known = {}, components()
    for room in sorted({room for room, _ in known.values()}):
        readme = PACKAGE / room / "README.md"
        before = readme.read_text(encoding="utf-8")
        parts = "\n".join(line for name, (place, one) in known.items() if place == room for line in _interface(name, one))
        head, _, rest = before.partition(_BEGIN)
        _, _, tail = rest.partition(_END)
        head = head if rest else f"{before.rstrip()}\n\n"
        texts[readme] = f"{head}{_BEGIN}\n{parts}\n{_END}{tail or chr(10)}"
    return texts


def _interface(name: str, component: Any) -> Iterator[str]:
    """A component's section of the README."""
    spec = component.component_spec
    about = {one.arg_name: one.description for one in docstring_parser.parse(component.python_func.__doc__ or "").params}
    yield f"## Component `{name}`\n"
    yield f"{_sentence(spec.description)} Image `{_image(spec)}`; for a pipeline of your own:\n"
    yield f'```python\n{name} = kfp.components.load_component_from_file("components/catalogue/{name}/component.yaml")\n```\n'
    yield "| input | type | default | |\n|---|---|---|---|"
    for key, one in (spec.inputs or {}).items():
        default = "required" if not one.optional else "none" if one.default is None else f"`{json.dumps(one.default)}`"
        yield f"| `{key}` | {_type(one.type)} | {default} | {_cell(about.get(key))} |"
    yield "\n| output | type | |\n|---|---|---|"
    for key, one in (spec.outputs or {}).items():
        yield f"| `{key}` | {_type(one.type)} | {_cell(about.get(key)) or 'a parameter: see above'} |"
    yield ""


def _image(spec: Any) -> str:
    found = _IMAGE.search(spec.implementation.container.image)
    assert found, spec.implementation.container.image
    return found[1]


def _type(name: str) -> str:
    """`system.Dataset@0.0.1` as Dataset, `Dict[String, Any]` as dict."""
    return name.removeprefix("system.").partition("@")[0] if "." in name else name.partition("[")[0].lower()


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _sentence(text: str | None) -> str:
    return _cell((text or "").partition("\n\n")[0])
