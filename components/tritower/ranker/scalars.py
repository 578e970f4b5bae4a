"""What a training says while it runs: one log line every few seconds, and TensorBoard scalars where wanted."""

import logging
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class Scalars:
    """Collects the loss of each step.

    Args:
        every_s: seconds between log lines.
        folder: for TensorBoard's event files; empty = none.
        file: gets a line `name=value` for each validation figure, as Katib's file collector reads them; None = none.
    """

    def __init__(self, every_s: float, folder: str, file: Path | None = None) -> None:
        self.every_s, self.file = every_s, file
        self.since, self.rows, self.losses = time.monotonic(), 0, list[float]()
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        self.board: Any = None
        if folder:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(folder)

    def step(self, step: int, steps: int, *, rows: int, loss: float, rate: float) -> None:
        """Count one step."""
        self.rows += rows
        self.losses.append(loss)
        seconds = time.monotonic() - self.since
        if seconds >= self.every_s or step == steps:
            mean, speed = sum(self.losses) / len(self.losses), self.rows / max(seconds, 1e-9)
            logger.info("step %d of %d: loss %.5f, %s rows/s", step, steps, mean, f"{speed:,.0f}")
            self.add(step, {"train/loss": mean, "train/rows_per_second": speed, "train/learning_rate": rate})
            self.since, self.rows, self.losses = time.monotonic(), 0, []

    def validation(self, step: int, figures: dict[str, float]) -> None:
        """Pass on the figures of a validation."""
        self.add(step, {f"validation/{name}": value for name, value in figures.items()})
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as lines:
                lines.writelines(f"{name}={value:.6f}\n" for name, value in figures.items())

    def add(self, step: int, figures: dict[str, float]) -> None:
        """Write figures to TensorBoard."""
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush."""
        if self.board is not None:
            self.board.close()
