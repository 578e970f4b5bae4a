"""A whole training in one process among others: rows, normaliser, network, training, model folder."""

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tritower import logs
from tritower.config import to_dict
from tritower.errors import DataError
from tritower.metrics import examination
from tritower.ranker import artifact, checkpoint, measure, preparation, rows
from tritower.ranker.artifact import Artifact
from tritower.ranker.batches import Source
from tritower.ranker.config import NetworkConfig, RankerConfig
from tritower.ranker.network import ClickModel
from tritower.ranker.preparation import Prepared
from tritower.ranker.process_group import ProcessGroup
from tritower.ranker.rows import Rows
from tritower.ranker.training import Trainer

logger = logging.getLogger(__name__)


def train(
    *,
    features: Path,
    embeddings: Path,
    model: Path,
    work: Path,
    failures: str,
    config: RankerConfig,
    group: ProcessGroup,
    checkpoints: str = "",
    metrics_file: Path | None = None,
) -> None:
    """Train and, in rank 0, write the model folder.

    Args:
        features: the features step's output.
        embeddings: the encoder's matrix.
        model: folder to write.
        work: folder for memory-mapped rows, emptied first; the processes of a node share it.
        failures: location of the folder for the batch of a loss that is not finite.
        config: the knobs.
        group: this process among the others.
        checkpoints: location for checkpoints where `config.launch` names none; who gives it removes what is there.
        metrics_file: gets the validation figures of the first member as they come.

    Raises:
        DataError: a split is empty or has no clicks.
        NonFiniteLossError: training diverged.
    """
    matrix_TD, encoder = rows.load_embeddings(embeddings)
    names = rows.feature_names(features)
    prepared = _prepare(features, work, names, config, group)
    train_rows, validation = prepared.train, prepared.validation
    config = replace(config, network=_supported(config.network, prepared))
    share = float(np.asarray(train_rows.clicked).mean())
    if not 0 < share < 1:
        raise DataError(f"a share of {share} of the rows is clicked", where="train", remedy="Give a log with both kinds.")
    start, cpu_start = time.perf_counter(), time.process_time()
    source = Source(train_rows, matrix_TD, group.device)
    ensemble = EnsembleTrainer(
        train=source, validation=source.of(validation), features=len(names), group=group, failures=failures, share=share,
        slope=_position_slope(train_rows) if config.network.position != "none" else None,
        checkpoints=(config.launch.checkpoints or checkpoints).rstrip("/"),
        data=_digest_of_data(names, train_rows, validation, rows.encoder_hash(encoder)),
    )  # fmt: skip
    trainers, kept = ensemble.train_all(config, metrics_file)
    seconds = time.perf_counter() - start
    cpu_seconds = group.mean(time.process_time() - cpu_start) * group.world_size
    figures = together(kept)
    if group.rank == 0:
        everyone = trainers + kept if config.training.distil else trainers
        metrics = figures | _metrics(everyone, seconds, cpu_seconds)
        config = replace(config, training=replace(config.training, members=len(kept)))
        networks = [trainer.model for trainer in kept]
        artifact.save(model, Artifact(config, names, encoder, prepared.normaliser, networks), metrics)
        for trainer in everyone if config.launch.checkpoints else ():
            checkpoint.clear(trainer.checkpoints)
    group.barrier()


def _supported(network: NetworkConfig, prepared: Prepared) -> NetworkConfig:
    """The network without the parts that the rows have nothing for."""
    classes = int(prepared.class_K.max(initial=-1)) + 1
    network = replace(network, occupation_classes=classes, descriptions=prepared.described)
    if not network.descriptions:
        logger.info("the document tower sees no descriptions: none are known, or they are switched off")
    if network.position != "none" and not np.any(prepared.train.position):
        # Examination and relevance could not be told apart.
        logger.info("no position is known: training without position bias")
        network = replace(network, position="none")
    return network


def together(trainers: list[Trainer]) -> dict[str, float]:
    """Validation figures of the members' mean probability of a click as shown."""
    validation = trainers[0].validation
    sides = [trainer.predict(validation) for trainer in trainers]
    click_N, skip_N = (np.log(np.mean(np.exp(np.stack(side)), axis=0)) for side in zip(*sides, strict=True))
    clicked_N = np.asarray(validation.rows.clicked)
    return {f"validation_{name}": value for name, value in measure.figures(click_N, skip_N, clicked_N).items()}


def _prepare(features: Path, work: Path, names: list[str], config: RankerConfig, group: ProcessGroup) -> Prepared:
    """The rows, made by one process of the node and mapped by all."""
    with logs.phase(logger, "prepare rows") as counts:

        def make() -> str:
            preparation.prepare(
                features, work, names=names, sample=config.training.normaliser_rows, kind=config.training.normaliser,
                occupations=config.network.occupation_classes, descriptions=config.network.descriptions,
            )  # fmt: skip
            return ""

        group.node.once("rows", make)
        prepared = preparation.read(work)
        counts["train"], counts["validation"] = len(prepared.train), len(prepared.validation)
        counts["features"] = len(names)
    return prepared


@dataclass(frozen=True, kw_only=True)
class EnsembleTrainer:
    """What all networks of a session have in common; `share` of the rows is clicked, `slope` starts the position weights.

    `checkpoints` gets a folder for each network, named by a digest of its data and knobs; empty keeps none.
    """

    train: Source
    validation: Source
    features: int
    group: ProcessGroup
    failures: str
    checkpoints: str
    share: float
    slope: float | None
    data: str

    def train_all(self, config: RankerConfig, metrics_file: Path | None) -> tuple[list[Trainer], list[Trainer]]:
        """Train the members and, where asked for, one network that learns from them: the members, and what to keep."""
        training = config.training
        members = [
            self.train_member(
                replace(config, training=replace(training, seed=training.seed + number)),
                f"member {number + 1} of {training.members}",
                metrics_file=metrics_file if number == 0 and not training.distil else None,
            )
            for number in range(training.members)
        ]
        if not training.distil:
            return members, members
        own = replace(config, training=replace(training, seed=training.seed + training.members))
        return members, [self.train_member(own, "distilled network", teachers=members, metrics_file=metrics_file)]

    def train_member(
        self, config: RankerConfig, name: str, *, teachers: Sequence[Trainer] = (), metrics_file: Path | None = None
    ) -> Trainer:
        """Train one network, on clicks or also on what `teachers` say of them."""
        torch.manual_seed(config.training.seed)
        network = ClickModel(config.network, dim=self.train.matrix_TD.shape[1], features=self.features)
        torch.nn.init.constant_(network.relevance.logit.bias, float(np.log(self.share / (1 - self.share))))
        if network.bias is not None and self.slope is not None:
            network.bias.start_at(self.slope)
        knobs = {group: values for group, values in to_dict(config).items() if group != "launch"}
        text = json.dumps([self.data, knobs, bool(teachers)], sort_keys=True)
        identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        learned_from = self.train.learning(_taught(teachers, self.train)) if teachers else self.train
        trainer = Trainer(
            network, train=learned_from, validation=self.validation, config=config, group=self.group,
            checkpoints=f"{self.checkpoints}/{identity}" if self.checkpoints else "",
            metrics_file=metrics_file, failures=self.failures,
        )  # fmt: skip
        with logs.phase(logger, name):
            trainer.run()
        return trainer


def _taught(teachers: Sequence[Trainer], train: Source) -> NDArray[np.float32]:
    """The mean of each click and the teachers' mean probability of it as shown."""
    said_N = np.mean([np.exp(teacher.predict(train)[0]) for teacher in teachers], axis=0)
    return np.asarray(0.5 * (np.asarray(train.rows.clicked, np.float32) + said_N), np.float32)


def _position_slope(train_rows: Rows) -> float | None:
    randomised_N = np.asarray(train_rows.randomised)
    found = examination.slope(np.asarray(train_rows.position)[randomised_N], np.asarray(train_rows.clicked)[randomised_N])
    if found is not None:
        logger.info("position weights start at position ** -%.2f, from %d randomised rows", found, randomised_N.sum())
    return found


def _digest_of_data(names: list[str], train: Rows, validation: Rows, encoder: str) -> str:
    """Of the data that decides the result: another training never resumes from this one's checkpoints."""
    facts = json.dumps([names, len(validation), encoder]).encode()
    arrays = b"".join(np.asarray(array).tobytes() for array in (train.clicked, train.document, train.description))
    return hashlib.sha256(facts + arrays).hexdigest()


def _metrics(trainers: list[Trainer], seconds: float, cpu_seconds: float) -> dict[str, float]:
    """The names say whose steps they count: networks are trained one after the other, and may stop at different steps."""
    first = trainers[0]
    rows_seen = sum(trainer.progress.step * trainer.batch_size for trainer in trainers)
    return {
        "best_step_of_first_network": float(first.progress.best_step),
        "epochs_of_first_network": first.progress.step / first.per_epoch,
        "networks": float(len(trainers)),
        "steps_of_all_networks": float(sum(trainer.progress.step for trainer in trainers)),
        "train_rows": float(len(first.train)),
        "train_seconds": seconds,
        "train_cpu_seconds": cpu_seconds,
        "rows_per_second": rows_seen / seconds,
    }
