"""A pipeline with the champion's three steps around one that makes a state, wired as `batch` is."""

from pathlib import Path

from kfp import compiler, dsl
from kfp.dsl import Dataset, Input, Model, Output
from tritower.champion.component import fetch, record, resolve


@dsl.component(base_image="tritower/base:0", install_kfp_package=False)
def work(
    hour: int, ranker_model: Input[Model], encoder: Input[Model], encoder_copy_at: str, previous: str, state: Output[Dataset]
) -> None:
    from pathlib import Path

    from tritower import storage

    assert (Path(ranker_model.path) / "weights.json").exists() and (Path(encoder.path) / "hash.json").exists()
    assert [file.rpartition("/")[2] for file in storage.list_files(encoder_copy_at)] == ["hash.json"]
    with storage.atomic_directory(state.path) as folder:
        storage.write_json(folder / "state.json", {"last_ts": hour * 3_600_000_000, "previous": previous})


@dsl.pipeline(name="day")
def day(hour: int, model_champion: str = "", model_ranker: str = "", model_encoder: str = "", data_state: str = "") -> Dataset:
    given = {"ranker_model": model_ranker, "encoder": model_encoder, "state": data_state}
    found = resolve(champion=model_champion, **given).set_caching_options(enable_caching=False).outputs
    used = fetch(ranker_model_at=found["ranker_model"], encoder_at=found["encoder"]).outputs
    made = work(hour=hour, **used, previous=found["state"])
    left = {"state": made.outputs["state"], "version": found["version"], "run": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    record(champion=model_champion, **left).set_caching_options(enable_caching=False).after(made)
    return made.outputs["state"]


def compiled(folder: Path) -> Path:
    path = folder / "day.yaml"
    compiler.Compiler().compile(day, str(path))
    return path
