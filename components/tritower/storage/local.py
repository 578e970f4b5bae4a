"""Files of this machine: JSON, the parts of a table, copies, and the walk that meets every plain file once."""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tritower.errors import StorageError
from tritower.storage import atomic

TWICE = "a link to what is read already"
NOWHERE = "the symbolic link leads nowhere"
SPECIAL = "it is no plain file"


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8, atomically."""
    with atomic.file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The value of a JSON file.

    Raises:
        StorageError: there is no such file, or it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StorageError(
            "the file does not exist", where=str(path), remedy="Was the step before it run to its end?"
        ) from None
    except PermissionError:
        raise StorageError(
            "this user may not read it",
            where=str(path),
            remedy="Ask its owner for the right to read it (chmod a+r, or a group).",
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StorageError(
            f"the file is not JSON: {error}", where=str(path), remedy="Run the step that writes it again."
        ) from None


def parquet_parts(directory: str | Path) -> list[Path]:
    """The `*.parquet` files of a directory by name.

    Raises:
        StorageError: there is none.
    """
    parts = sorted(Path(directory).glob("*.parquet"))
    if not parts:
        raise StorageError("no Parquet files", where=str(directory), remedy="Was the step before it run to its end?")
    return parts


def copy(source: Path, folder: Path, *, above: tuple[Path, ...] = ()) -> None:
    """Copy a file into a folder, or everything below a folder; links are followed.

    Args:
        source: the file or folder.
        folder: where the copy goes.
        above: the folders that led to `source`, as they really are.

    Raises:
        StorageError: nothing is there, or a link leads back to a folder that it is in.
    """
    if not source.exists():
        raise StorageError("nothing is there", where=str(source), remedy="Check the spelling of the path.")
    if not source.is_dir():
        shutil.copy2(source, folder)
        return
    real = source.resolve()
    if real in above:
        raise StorageError("the symbolic link leads in a circle", where=str(source), remedy="Remove it.")
    for entry in sorted(source.iterdir()):
        if entry.is_dir():
            (folder / entry.name).mkdir()
            copy(entry, folder / entry.name, above=(*above, real))
        else:
            shutil.copy2(entry, folder)


@dataclass(frozen=True)
class Found:
    """What a walk met: the files, and what it left out with the reason (`TWICE`, `NOWHERE` or `SPECIAL`)."""

    files: list[Path] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)


def below(top: Path) -> Found:
    """Every plain file at or below a folder, hidden ones too, in no particular order.

    A folder or file that several names lead to counts once, under its own name where it has one below `top`; a link that
    leads back up is left out. Links are followed after everything else of their folder.

    Raises:
        StorageError: a folder cannot be read.
    """
    found = Found()
    _walk(top, top.resolve(), set(), found)
    return found


def _walk(top: Path, root: Path, seen: set[Path], found: Found) -> None:
    links: list[Path] = []
    for folder, folders, names in os.walk(top, onerror=_cannot_read):
        seen.add(Path(folder).resolve())
        for path in (Path(folder, name) for name in sorted(folders + names)):
            if path.is_symlink():
                links.append(path)
            elif path.is_file():
                seen.add(path.resolve())
                found.files.append(path)
            elif not path.is_dir():
                found.left_out.append((path, SPECIAL))
    for link in sorted(links):
        if not link.exists():
            found.left_out.append((link, NOWHERE))
            continue
        real = link.resolve()
        if real in seen or root.is_relative_to(real) or top.resolve().is_relative_to(real):
            found.left_out.append((link, TWICE))
        elif real.is_dir():
            _walk(link, root, seen, found)
        elif real.is_file():
            seen.add(real)
            found.files.append(link)
        else:
            found.left_out.append((link, SPECIAL))


def _cannot_read(error: OSError) -> None:
    raise StorageError(
        f"the folder cannot be read: {error.strerror}", where=str(error.filename), remedy="Check its permissions."
    ) from error
