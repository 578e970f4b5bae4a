"""The ingest step as a KFP component."""

from typing import Any, NamedTuple

from kfp.dsl import HTML, Dataset, Metrics, Output

from tritower._build import component, engine_image


@component(engine_image())
def ingest(
    jobs: str,
    impressions: str,
    dataset: Output[Dataset],
    ingest_report: Output[HTML],
    ingest_metrics: Output[Metrics],
    users: str = "",
    data_version: str = "",
    engine: str = "duckdb",
    config: dict[str, Any] = {},
) -> NamedTuple("Ingested", [("dataset_at", str)]):  # type: ignore[valid-type]
    """Checks, deduplicates, numbers and splits raw logs by time; the parameter `dataset_at` is the location of the dataset.

    Args:
        jobs: Location of the job adverts: a file or folder of CSV, JSON Lines or Parquet; a path, s3://, minio:// or gs://.
        impressions: Location of the jobs shown for searches.
        dataset: The clean dataset.
        ingest_report: What was refused and why.
        ingest_metrics: Rows in, out and refused by table, and searches; the file has every count.
        users: Location of the user profiles; empty when there is none.
        data_version: Any text that changes when the data behind the same location does, so that the cache sees it.
        engine: duckdb or spark, unless config says otherwise.
        config: Knobs of IngestConfig.
    """
    from tritower.config import from_dict
    from tritower.ingest import step
    from tritower.ingest.config import IngestConfig
    from tritower.properties import describe, hand_on

    outputs = {"dataset": dataset.path, "quality": ingest_report.path, "metrics": ingest_metrics.path}
    knobs = from_dict(IngestConfig, {"engine": engine, **config})
    version = step.version(data_version)
    numbers = step.run(jobs=jobs, impressions=impressions, users=users, config=knobs, store=dataset.uri, **outputs)
    for name, value in step.headline(numbers).items():
        ingest_metrics.log_metric(name, value)
    describe(dataset, {"data_version": version, "rows": numbers["impressions_out"]})
    return (hand_on(dataset, dataset.path),)
