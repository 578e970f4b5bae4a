"""`resolve`, `fetch` and `record` as steps, with a backend's inputs: here, and with root and pointer in a real store."""

from pathlib import Path

import pytest
from tritower import storage
from tritower.champion import kept, pointer
from tritower.errors import StepError

from pipelines import compiling, graph, local
from tests.support import day


@pytest.fixture
def used(tmp_path: Path) -> dict[str, str]:
    """A model and its encoder."""
    for name, file in (("ranker", "weights"), ("encoder", "hash")):
        with storage.atomic_directory(tmp_path / "used" / name) as folder:
            storage.write_json(folder / f"{file}.json", 1)
    return {f"model_{name}": str(tmp_path / "used" / name) for name in ("ranker", "encoder")}


def ran(tmp_path: Path, store: str = "", **arguments: object) -> tuple[str, dict[str, str]]:
    """Location of the state that a run made, and what became of each step."""
    path = day.compiled(tmp_path)
    outcome = local.run(path, arguments, root=tmp_path / "root", store=store, as_backend=True)
    return outcome.outputs["Output"], {step.name: step.status for step in outcome.steps}


@pytest.mark.parametrize("where", ["here", "in a store"])
def test_days_go_on_from_each_other(where: str, used: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = "" if where == "here" else request.getfixturevalue("s3")
    champion = f"{store}/pointer" if store else str(tmp_path / "pointer")
    if store:
        for name, place in used.items():
            storage.upload_tree(place, f"{store}/used/{name}")
            used[name] = f"{store}/used/{name}"
    with pytest.raises(StepError, match="resolve: ArtifactError: there is no champion yet"):
        ran(tmp_path, store, hour=1, model_champion=champion)
    new = pointer.Champion(version=1, ranker_model=used["model_ranker"], encoder=used["model_encoder"])
    kept.move(champion, lambda now: pointer.promoted(now, new, None))

    state, steps = ran(tmp_path, store, hour=1, model_champion=champion)
    assert set(steps.values()) == {"done"}
    first = kept.read(champion).state
    assert first and (first.location, first.reaches_to) == (state, "1970-01-01T01:00:00Z")
    assert first.run and "{{" not in first.run
    assert state.startswith(store or str(tmp_path / "root"))

    second, steps = ran(tmp_path, store, hour=25, model_champion=champion)
    assert steps == {"resolve": "done", "fetch": "cached", "work": "done", "record": "done"}, "the pointer is read anew"
    storage.fetch_tree(second, tmp_path / "second")
    assert storage.read_json(tmp_path / "second" / "state.json")["previous"] == state
    now = kept.read(champion)
    assert now.state and now.state.location == second and now.champion == new


def test_a_model_given_by_hand_needs_no_pointer(used: dict[str, str], tmp_path: Path) -> None:
    state, _ = ran(tmp_path, hour=1, **used)
    assert storage.read_json(Path(state) / "state.json")["previous"] == ""
    _, steps = ran(tmp_path, hour=1, **used)
    assert steps == {"resolve": "done", "fetch": "cached", "work": "cached", "record": "done"}
    assert not list(tmp_path.rglob("champion.json"))


def test_the_steps_of_a_backend_never_come_from_its_cache(tmp_path: Path) -> None:
    """Their inputs stay the same from day to day."""
    variant = compiling.compile_one(tmp_path / "all.yaml", "training", frozenset({"baselines", "champion"}))
    for path in (compiling.yaml_path("batch"), compiling.yaml_path("training"), variant):
        tasks = {task.shown: task.spec for task in graph.steps(graph.document(path))}
        caching = {name: task["cachingOptions"].get("enableCache", False) for name, task in tasks.items()}
        anew = {name for name, is_on in caching.items() if not is_on}
        assert anew == {"record", *({"resolve", "champion_resolve"} & caching.keys())}
        assert "recommendations" in tasks["record"]["dependentTasks"]
