"""Where Spark's workers run."""

from dataclasses import dataclass, field
from typing import Any, Literal

from tritower.config import check


@dataclass(frozen=True, kw_only=True)
class SparkConfig:
    """Knobs of a Spark session of our own. What spark-submit, the Spark operator or SPARK_REMOTE set up goes before it."""

    master: Literal["", "kubernetes"] = ""
    """kubernetes: this pod is the driver, and its executors are pods of the same cluster, without an operator. Empty: what
    TRITOWER_SPARK_MASTER names, else this process's own machine."""

    executors: int = 2
    """Executor pods, 1 to 1,000."""

    cores: int = 1
    """Cores of each, 1 or more: so many tasks run in it at once."""

    memory: str = "4Gi"
    """Memory of each pod, requested and as its limit. Half of it is Java's heap, the rest the Python workers'; above 450Mi of
    heap, which Spark takes at least, so 1Gi or more."""

    cluster: dict[str, Any] = field(default_factory=dict)
    """Where and how the pods run: image, namespace, node_selector, tolerations, service_account, store_secret and the other
    knobs of `cluster.config.ClusterConfig`."""

    def __post_init__(self) -> None:
        check(1 <= self.executors <= 1_000, "executors", self.executors, "from 1 to 1,000")
        check(self.cores >= 1, "cores", self.cores, "of at least 1")
