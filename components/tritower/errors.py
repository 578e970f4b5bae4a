"""Every error tritower raises on purpose, in one tree.

    TritowerError
    ├── ConfigError      (ValueError)    a knob is unknown, of the wrong type or out of range
    ├── DataError        (ValueError)    input rows or files are not what their schema says
    │   ├── SchemaError                  a column is missing or has a type that cannot be converted
    │   └── QualityError                 more rows were quarantined than the threshold allows
    ├── ArtifactError    (ValueError)    a model or dataset does not fit the one it is used with
    ├── StorageError     (OSError)       a location cannot be read or written
    │   └── CredentialsError             the store refuses the credentials, or there are none
    ├── StepError        (RuntimeError)  a step's own child process failed
    │   └── NonFiniteLossError           training diverged; the offending batch was saved
    └── LaunchError      (RuntimeError)  a cluster job could not be created or followed
        └── JobFailed                    the cluster job ended without success

A message has three parts: the problem, where it is, and how to mend it.
"""


class TritowerError(Exception):
    """Base of the tree.

    Args:
        problem: what is wrong, one sentence without a full stop.
        where: the file, row, column, knob or object concerned.
        remedy: what the reader can do about it.
    """

    def __init__(self, problem: str, *, where: str = "", remedy: str = "") -> None:
        self.problem = problem
        self.where = where
        self.remedy = remedy
        super().__init__(problem)

    def __str__(self) -> str:
        text = f"{self.problem} (in {self.where})" if self.where else self.problem
        return f"{text}. {self.remedy}" if self.remedy else text

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


class StepError(TritowerError, RuntimeError):
    """A step's own child process failed."""


class NonFiniteLossError(StepError):
    """Training diverged; the offending batch was saved."""


class LaunchError(TritowerError, RuntimeError):
    """A cluster job could not be created or followed."""


class JobFailed(LaunchError):
    """The cluster job ended without success."""
