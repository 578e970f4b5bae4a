"""The plain files below a local folder, each once, whatever symbolic links lead to it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from tritower.errors import StorageError

TWICE = "a link to what is read already"
NOWHERE = "the symbolic link leads nowhere"
SPECIAL = "it is no plain file"


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
