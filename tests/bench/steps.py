"""The steps of the main job as plain calls, each in its own folder and taken from there when it has run before."""

import json
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tritower.baseline import step as baseline
from tritower.baseline.config import BaselineConfig
from tritower.config import from_dict
from tritower.encoder import step as encoder
from tritower.encoder.config import EmbedConfig
from tritower.evaluation import step as evaluation
from tritower.evaluation.config import EvaluationConfig
from tritower.features import step as features
from tritower.features.config import FeaturesConfig
from tritower.ingest import step as ingest
from tritower.ingest.config import IngestConfig
from tritower.ranker import step as ranker
from tritower.ranker.config import RankerConfig

VARIANTS = {"baseline": "standard", "baseline_cos": "cosines", "baseline_full": "full"}


class Job:
    """One log on its way through the steps, under `folder`.

    Args:
        raw: folder with jobs.parquet, impressions and users.parquet; truth/ beside them where the log is simulated.
        configs: step name -> knobs, such as {"ranker": {"epochs": 4}}.
    """

    def __init__(self, folder: Path, raw: Path, configs: dict[str, dict[str, Any]]) -> None:
        self.folder, self.raw, self.configs = folder, raw, configs
        folder.mkdir(parents=True, exist_ok=True)
        self.record = folder / "steps.json"

    def at(self, name: str) -> Path:
        """Where a step's output lies."""
        return self.folder / name

    def config(self, kind: type, name: str, **more: Any) -> Any:
        """A step's config from its knobs."""
        return from_dict(kind, {**self.configs.get(name, {}), **more}, where=name)

    def step(self, name: str, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run `function` unless it has run before with the same knobs; returns its numbers."""
        done = json.loads(self.record.read_text()) if self.record.exists() else {}
        knobs = self.configs.get(name.split("+")[0], {})
        if name in done and done[name]["knobs"] == knobs:
            return done[name]["numbers"]
        for key in list(done)[list(done).index(name) :] if name in done else []:
            del done[key]  # what came after was made from what is made anew now
        start, cpu = time.perf_counter(), time.process_time()
        numbers = function()
        done[name] = {
            "seconds": round(time.perf_counter() - start, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "knobs": knobs,
            "numbers": {key: value for key, value in numbers.items() if isinstance(value, int | float | str)},
        }
        self.record.write_text(json.dumps(done, indent=1))
        print(f"{self.folder.name} {name}: {done[name]['seconds']} s, peak {done[name]['peak_gib']} GiB", flush=True)
        return done[name]["numbers"]

    def forget(self, *names: str) -> None:
        """Make these steps run again."""
        done = json.loads(self.record.read_text()) if self.record.exists() else {}
        self.record.write_text(json.dumps({key: value for key, value in done.items() if key not in names}, indent=1))

    def prepare(self) -> None:
        """ingest, encoder (fine-tuned unless its knobs say otherwise), embed, features."""
        at, raw = self.at, self.raw
        self.step("ingest", lambda: ingest.run(
            jobs=str(raw / "jobs.parquet"), impressions=str(raw / "impressions"), users=str(raw / "users.parquet"),
            dataset=at("dataset"), config=self.config(IngestConfig, "ingest")))  # fmt: skip
        tuned: Path | str = ""
        if "finetune" in self.configs:
            from tritower.encoder.config import FinetuneConfig

            tuned = at("encoder")
            self.step("finetune", lambda: encoder.finetune(
                dataset=at("dataset"), model=tuned, config=self.config(FinetuneConfig, "finetune")))  # fmt: skip
        self.step("embed", lambda: encoder.embed(
            dataset=at("dataset"), embeddings=at("embeddings"), encoder=tuned, config=self.config(EmbedConfig, "embed")))  # fmt: skip
        self.step("features", lambda: features.run(
            dataset=at("dataset"), embeddings=at("embeddings"), features=at("features"),
            config=self.config(FeaturesConfig, "features")))  # fmt: skip

    def baselines(self, *names: str) -> None:
        """The XGBoost rivals."""
        for name in names or VARIANTS:
            self.step(f"baseline+{VARIANTS[name]}", lambda name=name: baseline.run(
                features=self.at("features"), embeddings=self.at("embeddings"), model=self.at(f"{name}_model"),
                scores=self.at(f"{name}_scores"), config=self.config(BaselineConfig, "baseline", variant=VARIANTS[name])))  # fmt: skip

    def ranker(self) -> None:
        """The triple tower."""
        self.step("ranker", lambda: ranker.train(
            features=self.at("features"), embeddings=self.at("embeddings"), model=self.at("model"),
            scores=self.at("scores"), config=self.config(RankerConfig, "ranker")))  # fmt: skip

    def judge(self) -> dict[str, Any]:
        """Evaluate; the content of metrics.json."""
        at = self.at
        truth = self.raw / "truth"
        evaluation.run(
            dataset=at("dataset"), features=at("features"), scores=at("scores"), scores_baseline=at("baseline_scores"),
            scores_baseline_cos=at("baseline_cos_scores"), scores_baseline_full=at("baseline_full_scores"),
            truth=str(truth) if truth.exists() else "", metrics=at("metrics.json"), report=at("report.html"),
            config=self.config(EvaluationConfig, "evaluation"),
        )  # fmt: skip
        return json.loads(at("metrics.json").read_text())

    def remove(self) -> None:
        """Delete everything but metrics, report and the record."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
