"""Every knob of the ranker, nested by who reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from tritower.config import Removed, check


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """What the network computes."""

    query_tower: tuple[int, ...] = (128,)
    """Widths of the query tower's layers, each >= 1."""

    document_tower: tuple[int, ...] = (128,)
    """Widths of the document tower's layers, each >= 1."""

    interaction_tower: tuple[int, ...] = (128, 64)
    """Widths of the interaction tower's layers, each >= 1."""

    head: tuple[int, ...] = (128,)
    """Widths of the head's hidden layers, each >= 1."""

    cross_layers: int = 2
    """Cross layers (DCN V2) before the interaction tower; 0 = none. Two rank better at a third more time."""

    cross_rank: int = 16
    """Rank of the cross layers' matrices, >= 1."""

    text_scale: float = 8.0
    """Factor on embeddings before the text towers, > 0. The entries of a unit vector of a few hundred dimensions are near 0.05,
    while initial weights and learning rates are made for entries near 1."""

    descriptions: bool = True
    """Give the document tower the embedding of the job's description beside that of its title and company; zeros for a job
    without one, and off where no job has one."""

    occupation_classes: int = 512
    """Occupation codes, the most frequent of train's jobs, that both text towers learn to tell as a second task: a document's
    own and, for a query, those of the jobs clicked after it. How well the two go together is an input of the interaction tower.
    0 = none. Codes are needed in training only."""

    position: Literal["product", "none"] = "product"
    """How position bias enters training: click probability = examination x relevance (PAL, Guo et al. 2019), or not at all.
    Scores leave it out."""

    positions: int = 50
    """Positions with an examination weight of their own, >= 1; those further down share the last."""

    FORMER: ClassVar[Mapping[str, str | Removed]] = {
        "product": Removed("the product of the query and the document tower ranked no better over three seeds", off=False),
    }

    def __post_init__(self) -> None:
        for name in ("query_tower", "document_tower", "interaction_tower", "head"):
            widths = getattr(self, name)
            check(bool(widths) and all(width >= 1 for width in widths), name, widths, "with one or more widths >= 1")
        _at_least(self, 1, "positions", "cross_rank")
        _at_least(self, 0, "cross_layers", "occupation_classes")
        _above_zero(self, "text_scale")


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """AdamW, its schedule and the moving average of the weights."""

    learning_rate: float = 2e-3
    """Peak learning rate of AdamW, > 0."""

    position_rate: float = 20.0
    """Learning rate of the position weights as a multiple of `learning_rate`, > 0: they are few and start at 0."""

    warmup_ratio: float = 0.1
    """Share of all steps with a rising learning rate, in [0, 1); then half a cosine down to 0."""

    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW on matrices, >= 0."""

    clip_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 = never."""

    ema_decay: float = 0.98
    """Decay per step of a moving average of the weights, in [0, 1); the average is what is validated and kept. 0 = none."""

    def __post_init__(self) -> None:
        _above_zero(self, "learning_rate", "position_rate")
        _at_least(self, 0, "weight_decay", "clip_norm")
        check(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "in [0, 1)")
        check(0 <= self.warmup_ratio < 1, "warmup_ratio", self.warmup_ratio, "in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The rows, the losses, and when training ends."""

    epochs: int = 6
    """Passes over train at most, >= 1; also the length of the learning-rate schedule."""

    batch_size: int = 2048
    """Rows of one optimiser step over all processes, >= 2; divisible by `processes`."""

    occupation_weight: float = 0.1
    """Weight of that task's cross-entropies beside the click loss, >= 0."""

    members: int = 3
    """Networks trained one after the other from seeds `seed`, `seed` + 1, ...; the score is their mean probability, >= 1. The
    largest gain found for ranking, at a cost in proportion."""

    distil: bool = False
    """Train one more network on the mean of each click and the members' mean probability of it, and keep that one alone:
    scoring then costs what a single network costs."""

    normaliser: Literal["quantile", "standard"] = "quantile"
    """Interaction features: quantile -> normal score, or signed log and standardise. Fitted on train only."""

    normaliser_rows: int = 200_000
    """Rows of train that the normaliser is fitted on, evenly spaced, >= 1."""

    monitor: Literal["log_loss", "auc"] = "log_loss"
    """Validation figure that early stopping and the choice of the best weights look at, position bias included."""

    evaluations_per_epoch: int = 2
    """Validations in each epoch, >= 1."""

    patience: int = 4
    """Validations without a better figure before training stops, >= 1."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16 = autocast; auto = what is faster: bf16 on a CPU that multiplies it in hardware, float32 with tf32 products on a
    GPU."""

    seed: int = 17
    """Seed of weights and order, >= 0."""

    def __post_init__(self) -> None:
        _at_least(self, 2, "batch_size")
        _at_least(self, 1, "epochs", "members", "normaliser_rows", "evaluations_per_epoch", "patience")
        _at_least(self, 0, "occupation_weight", "seed")


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """Where and how fast a training runs; nothing here changes what it computes."""

    processes: int = 1
    """Processes on this machine (torchrun ranks), >= 1."""

    threads: int = 0
    """CPU threads of each process; 0 = OMP_NUM_THREADS where set, else 1: the matrices are small, use more `processes`."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto = cuda where there is one."""

    loop: Literal["auto", "eager", "tables", "graph", "compiled"] = "auto"
    """How steps are taken: eager = one by one, the reference; tables = batches, rates and texts from tables on the device;
    graph = these as a CUDA graph; compiled = with the loss compiled. auto = eager on a CPU, graph on a GPU, compiled where a
    member has so many steps that the time to compile is won back (`loops.COMPILE_PAYS`). They differ in the order of sums only
    (docs/decisions/0033)."""

    checkpoints: str = ""
    """Folder or URI (`s3://`, `minio://`, `gs://`) for checkpoints, from which an interrupted training goes on; empty = beside
    the model that the step makes, in the run's store, until the step has ended well. Each training has a folder of its own in
    there, named by a digest of its data and knobs."""

    checkpoint_every_s: float = 60.0
    """Seconds between checkpoints, > 0: what a killed training loses at most. Where a checkpoint takes more than a twentieth of
    that to write, twenty times as long as it took."""

    checkpoint_every_steps: int = 0
    """Steps between checkpoints; 0 = by time only."""

    log_every_s: float = 10.0
    """Seconds between log lines with loss and throughput, > 0."""

    tensorboard: str = ""
    """Folder for TensorBoard's event files; empty = none."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "processes")
        _at_least(self, 0, "threads", "checkpoint_every_steps")
        _above_zero(self, "checkpoint_every_s", "log_every_s")


_GROUPS = {"network": NetworkConfig, "optimiser": OptimiserConfig, "training": TrainingConfig, "launch": LaunchConfig}
_FLAT = {knob.name: f"{group}.{knob.name}" for group, kind in _GROUPS.items() for knob in fields(kind)}


@dataclass(frozen=True, kw_only=True)
class RankerConfig:
    """The network, its training and how it is launched: `{"network": {"cross_layers": 0}}` or `{"network.cross_layers": 0}`.

    The flat names of earlier versions are read too.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    """What the network computes."""

    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """AdamW, its schedule, the moving average."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Rows, losses, members, early stopping."""

    launch: LaunchConfig = field(default_factory=LaunchConfig)
    """Processes, device, checkpoints, logs."""

    FORMER: ClassVar[Mapping[str, str | Removed]] = {
        **_FLAT,
        "warmup_share": "optimiser.warmup_ratio",
        "average": "optimiser.ema_decay",
        "product": "network.product",
        "gates": Removed("gates by query ranked no better over three seeds", off=False),
        "hash_buckets": Removed("hashed keys ranked no better, and scored the next day's batch by other numbers", off=0),
        "hash_width": Removed("hashed keys ranked no better, and scored the next day's batch by other numbers", off=8),
        "past_clicks": Removed("attention over past clicks ranked no better over three seeds", off=0),
        "past_width": Removed("attention over past clicks ranked no better over three seeds", off=32),
        "shuffle": Removed("whole searches are drawn; single rows ranked no better over three seeds", off="requests"),
        "accumulate": Removed("a batch of this network needs no saving of memory; use more `processes`", off=1),
        "dropout": Removed("it ranked no better than the moving average and early stopping alone", off=0.0),
        "listwise": Removed("a listwise loss ranked no better over three seeds", off=0.0),
    }

    def __post_init__(self) -> None:
        """Check that the groups fit each other.

        Raises:
            ConfigError: a batch cannot be shared out.
        """
        processes = self.launch.processes
        check(
            self.training.batch_size % processes == 0,
            "training.batch_size",
            self.training.batch_size,
            f"divisible by launch.processes = {processes}",
        )


def _at_least(config: Any, least: int, *knobs: str) -> None:
    for knob in knobs:
        check(getattr(config, knob) >= least, knob, getattr(config, knob), f">= {least}")


def _above_zero(config: Any, *knobs: str) -> None:
    for knob in knobs:
        check(getattr(config, knob) > 0, knob, getattr(config, knob), "> 0")
