"""The steps of the main job as plain calls, each in its own folder and taken from there when it has run before."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timing
from tritower.baseline import step as baseline
from tritower.baseline.config import BaselineConfig
from tritower.config import from_dict
from tritower.encoder import step as encoder
from tritower.encoder.config import EmbedConfig, FinetuneConfig
from tritower.entities import step as entities
from tritower.entities.config import EntitiesConfig
from tritower.evaluation import step as evaluation
from tritower.evaluation.config import EvaluationConfig
from tritower.features import step as features
from tritower.features.config import FeaturesConfig
from tritower.ingest import step as ingest
from tritower.ingest.config import IngestConfig
from tritower.ranker import step as ranker
from tritower.ranker.config import RankerConfig

VARIANTS = {"baseline": "standard", "baseline_cos": "cosines", "baseline_full": "full"}
NAMES = ("model", *VARIANTS, "oracle")


class Job:
    """One log on its way through the steps, under `folder`.

    Args:
        raw: folder with jobs.parquet, impressions and users.parquet; truth/ beside them where the log is simulated.
        configs: step name -> knobs, such as {"ranker": {"epochs": 4}}. Without "finetune" the stock encoder is used.
    """

    def __init__(self, folder: Path, raw: Path, configs: dict[str, dict[str, Any]]) -> None:
        self.folder, self.raw, self.configs = folder, raw, configs
        self.record = folder / "steps.json"
        folder.mkdir(parents=True, exist_ok=True)

    def step(self, name: str, function: Callable[..., dict[str, Any]], config: Any, **places: Any) -> None:
        """Call `function` unless it has run before with the same config; its seconds and numbers go to steps.json.

        `peak_gib` is the most that the process held during the step, with what earlier steps left in it.
        """
        done = json.loads(self.record.read_text()) if self.record.exists() else {}
        if done.get(name, {}).get("config") == repr(config):
            return
        timing.forget_peak()
        start, cpu = time.perf_counter(), time.process_time()
        numbers = function(config=config, **{key: self.folder / value if value else "" for key, value in places.items()})
        done[name] = {
            "seconds": round(time.perf_counter() - start, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "peak_gib": round(timing.peak_mib() / 1024, 2),
            "config": repr(config),
            "numbers": {key: value for key, value in numbers.items() if isinstance(value, int | float | str)},
        }
        self.record.write_text(json.dumps(done, indent=1) + "\n")
        print(f"{self.folder.name} {name}: {done[name]['seconds']} s, peak {done[name]['peak_gib']} GiB", flush=True)

    def config(self, name: str, kind: type, **more: Any) -> Any:
        """The config of a step from its knobs."""
        return from_dict(kind, {**self.configs.get(name, {}), **more}, where=name)

    def prepare(self) -> None:
        """ingest, fine-tuning if asked for, embed, features."""

        def ingested(*, config: IngestConfig, dataset: Path) -> dict[str, Any]:
            raw = {name: str(next(self.raw.glob(f"{name}*"))) for name in ("jobs", "impressions", "users")}
            return ingest.run(**raw, dataset=dataset, config=config)

        self.step("ingest", ingested, self.config("ingest", IngestConfig), dataset="dataset")
        tuned = "encoder" if "finetune" in self.configs else ""
        if tuned:
            knobs = self.config("finetune", FinetuneConfig)
            self.step("finetune", encoder.finetune, knobs, dataset="dataset", model=tuned)
        knobs = self.config("embed", EmbedConfig)
        self.step("embed", encoder.embed, knobs, dataset="dataset", embeddings="embeddings", encoder=tuned)
        self.step("entities", entities.run, self.config("entities", EntitiesConfig), dataset="dataset", entities="entities")
        knobs = self.config("features", FeaturesConfig)
        read = {"dataset": "dataset", "embeddings": "embeddings", "entities": "entities"}
        self.step("features", features.run, knobs, **read, features="features")

    def rankers(self) -> None:
        """The three XGBoost rivals and the triple tower."""
        read = {"features": "features", "embeddings": "embeddings"}
        for name, variant in VARIANTS.items():
            knobs = self.config("baseline", BaselineConfig, variant=variant)
            self.step(name, baseline.run, knobs, **read, model=f"{name}_model", scores=f"{name}_scores")
        self.step("ranker", ranker.train, self.config("ranker", RankerConfig), **read, model="model", scores="scores")

    def judge(self) -> dict[str, Any]:
        """Evaluate; the content of metrics.json."""
        names = {f"scores_{name}": self.folder / f"{name}_scores" for name in VARIANTS}
        places = {"dataset": "dataset", "features": "features", "metrics": "metrics.json", "report": "report.html"}
        truth = self.raw / "truth"
        evaluation.run(
            scores=self.folder / "scores",
            truth=str(truth) if truth.exists() else "",
            config=self.config("evaluation", EvaluationConfig),
            **names,
            **{key: self.folder / value for key, value in places.items()},
        )
        document: dict[str, Any] = json.loads((self.folder / "metrics.json").read_text())
        return document
