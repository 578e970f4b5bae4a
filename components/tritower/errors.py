"""Every error tritower raises on purpose, in one tree.

    TritowerError
    ├── ConfigError      (ValueError)    a knob is unknown, of the wrong type or out of range
    ├── DataError        (ValueError)    input rows or files are not what their schema says
    │   ├── SchemaError                  a column is missing or has a type that cannot be converted
    │   └── QualityError                 more rows were quarantined than the threshold allows
    ├── ArtifactError    (ValueError)    a model or dataset does not fit the one it is used with
    ├── StorageError     (OSError)       a location cannot be read or written
    │   └── CredentialsError             the store refuses the credentials, or there are none
    ├── OverloadError    (RuntimeError)  more came in than can be taken; later there may be room
    ├── StepError        (RuntimeError)  a step's own child process failed
    │   └── NonFiniteLossError           training diverged; the offending batch was saved
    └── LaunchError      (RuntimeError)  a cluster job could not be created or followed
        └── JobFailed                    the cluster job ended without success

A message has three parts: the problem, where it is, and how to mend it. It is one line. Unprintable characters in a quoted
value are escaped, so that no value can look like another message.
"""

import errno
import re
import shutil

_LONGEST = 2000
"""Characters of a part of a message; a value may be a text of any length."""
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_SYSTEM = {
    errno.ENOENT: ("there is no such file or folder", "Check the spelling of the path."),
    errno.ENOTDIR: ("a file is in the place of a folder", "Name another place, or move the file."),
    errno.EISDIR: ("a folder is in the place of a file", "Name another place, or move the folder."),
    errno.EEXIST: ("something else is in its place", "Name another place, or move what is there."),
    errno.ENAMETOOLONG: ("the path is too long", "Name a shorter one."),
    errno.ELOOP: ("symbolic links lead back to themselves", "Mend the links."),
    errno.EROFS: ("the file system can only be read", "Name a place that can be written."),
    errno.EMFILE: ("too many files are open", "Raise the limit: ulimit -n."),
    errno.EIO: ("the disk fails", "Look at the machine's log, and write elsewhere."),
}


class TritowerError(Exception):
    """Base of the tree.

    Args:
        problem: what is wrong, one sentence without a full stop.
        where: the file, row, column, knob or object concerned.
        remedy: what the reader can do about it.
    """

    def __init__(self, problem: str, *, where: str = "", remedy: str = "") -> None:
        self.problem = one_line(problem).rstrip(" .:;,")
        self.where = one_line(where)
        self.remedy = re.sub(r"\.[ .]*$", ".", one_line(remedy).rstrip())
        super().__init__(self.problem)

    def __str__(self) -> str:
        text = f"{self.problem} (in {self.where})" if self.where else self.problem
        if not self.remedy:
            return text
        return f"{text} {self.remedy}" if text.endswith(("?", "!")) else f"{text}. {self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are lost by the default protocol when a worker process hands the error over.
        return _rebuild, (type(self), self.problem, self.where, self.remedy)


def _rebuild(kind: type[TritowerError], problem: str, where: str, remedy: str) -> TritowerError:
    return kind(problem, where=where, remedy=remedy)


class ConfigError(TritowerError, ValueError):
    """A knob is unknown, of the wrong type or out of range."""


class DataError(TritowerError, ValueError):
    """Input rows or files are not what their schema says."""


class SchemaError(DataError):
    """A column is missing or has a type that cannot be converted."""


class QualityError(DataError):
    """More rows were quarantined than the threshold allows."""


class ArtifactError(TritowerError, ValueError):
    """A model or dataset does not fit the one it is used with."""


class StorageError(TritowerError, OSError):
    """A location cannot be read or written."""


class CredentialsError(StorageError):
    """The store refuses the credentials, or there are none."""


class OverloadError(TritowerError, RuntimeError):
    """More came in than can be taken; later there may be room."""


class StepError(TritowerError, RuntimeError):
    """A step's own child process failed."""


class NonFiniteLossError(StepError):
    """Training diverged; the offending batch was saved."""


class LaunchError(TritowerError, RuntimeError):
    """A cluster job could not be created or followed."""


class JobFailed(LaunchError):
    """The cluster job ended without success."""


def one_line(text: str) -> str:
    """The text with everything that is not printable escaped as `repr` does, cut where it is very long."""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text):,} characters)"
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def of_system(error: OSError, *, where: str = "", verb: str = "opened") -> StorageError:
    """The StorageError for an error of the operating system about a file.

    Args:
        error: what the system raised; of a `shutil.Error`, which lists several failures, the first counts.
        where: the place, if the error does not name one.
        verb: what could not be done with the place, such as "written".
    """
    quoted = re.search(r"'(/[^']*)'", str(error))  # pyarrow names the file in its text only
    number, place = error.errno, str(error.filename2 or error.filename or (quoted[1] if quoted else where))
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        source, target, why = error.args[0][0]
        found = re.match(r"\[Errno (\d+)\]", str(why))
        number = int(found[1]) if found else None
        place = str(target if number in (*_FULL, errno.EROFS) else source)
    if number in _FULL:
        return StorageError("the disk is full", where=place, remedy="Free space or write elsewhere.")
    if number in (errno.EACCES, errno.EPERM):
        return StorageError(f"the place cannot be {verb}", where=place, remedy="Check its permissions and its owner.")
    problem, remedy = _SYSTEM.get(number or 0, (f"the system says: {error.strerror or error}", "Check the place."))
    return StorageError(problem, where=place, remedy=remedy)
