"""The steps of the pipelines: one entry each, and everything that is known of a step besides its wiring.

What follows from an entry: the pipeline's parameter `settings_<table>` and its description, the table of presets and `--set`,
the name in logs and in a backend's pages, which steps get the object store's keys, and the numbers shown when a step has ended.
A new step is an entry here and a line where it is wired (`training.py`, `batch.py`, `experiment.py`, `nested.py`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tritower.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a pipeline that can be left out when compiling.

    What is left out has no steps, no parameters and no tables of knobs.
    """

    name: str

    about: str
    """What it is, for a reader of `--help`."""

    is_default: bool
    """Whether the pipeline has it unless told otherwise."""

    locations: tuple[str, ...] = ()
    """Parameters of the pipeline that are its alone: locations."""

    replaces: tuple[str, ...] = ()
    """Parameters of the pipeline that it makes needless: locations of what it makes itself."""

    needs: tuple[str, ...] = ()
    """Parts that it works with, and that come with it."""


PARTS = {
    part.name: part
    for part in (
        Part(name="baselines", about="three XGBoost rivals, a quarter of the time", is_default=True),
        Part(name="tune", about="a search of the ranker's knobs before it is trained", is_default=False),
        Part(
            name="champion",
            about="the model in use, scored on the same rows; the gate then compares with it",
            is_default=False,
            locations=("model_ranker", "model_encoder"),
        ),
        Part(name="bundle", about="what a model server loads, made of the run's outputs", is_default=False),
        Part(
            name="deploy",
            about="the bundle comes to serve on the cluster if the gate passes (`deploy.launcher`)",
            is_default=False,
            needs=("bundle",),
        ),
        Part(name="plan", about="users, days and mailings that the experiment's test needs, from its past", is_default=True),
        Part(
            name="simulate",
            about="a test that never was, in place of one's own exposures (of the experiment)",
            is_default=False,
            replaces=("data_exposures", "data_guardrails", "data_past"),
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a step is given on a cluster. A pod without requests is the first to be killed when its node runs short."""

    cpu: str
    """CPUs that it is sure of, as Kubernetes writes them."""

    memory: str
    """Memory that it is sure of: what it takes for a log of its size, with some room."""

    cpu_limit: str
    """CPUs that it may use; its threads are as many (`tritower.threads`)."""

    memory_limit: str
    """Memory with which it is killed, so that it takes no other pod along."""

    deadline_h: int
    """Hours from its start, retries and waiting for a node included, after which it is ended."""


SIZES: dict[str, dict[bool, Need]] = {
    "small": {  # logs of up to about a million impressions, nodes of 4 CPUs and 12 GiB
        False: Need(cpu="100m", memory="1Gi", cpu_limit="4", memory_limit="4Gi", deadline_h=6),
        True: Need(cpu="250m", memory="1536Mi", cpu_limit="4", memory_limit="8Gi", deadline_h=24),
    },
    "medium": {  # up to about 20 million, nodes of 16 CPUs and 64 GiB
        False: Need(cpu="500m", memory="2Gi", cpu_limit="8", memory_limit="16Gi", deadline_h=12),
        True: Need(cpu="2", memory="6Gi", cpu_limit="16", memory_limit="32Gi", deadline_h=72),
    },
}
"""Size -> whether the step is heavy -> what it is given."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a pipeline."""

    name: str
    """What a run calls it: letters, digits and underscores."""

    room: str
    """The package `tritower.<room>` that does the work."""

    component: str
    """The component in `tritower.<room>.component`."""

    pipelines: tuple[str, ...] = ("training",)
    """The pipelines that have it."""

    part: str = ""
    """The part of `PARTS` that it belongs to; empty where it is always there."""

    within: str = ""
    """The nested pipeline that it is in; empty where it is a box of its own."""

    config: str = ""
    """The class of its knobs in `tritower.<room>.config`; empty where it has none."""

    table: str = ""
    """The table of its knobs in presets, which steps may share; empty for the step's name."""

    plain: Mapping[str, str] = field(default_factory=dict)
    """Parameter of the pipeline and of the component -> the knob that it is, for knobs that people turn."""

    about: str = ""
    """What a reader must know of the knobs, after the name of their class."""

    preset: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Pipeline -> knobs that are the default there."""

    opens_store: bool = False
    """Whether it reads locations of the user's, and so needs the object store's address and keys."""

    resumes: bool = False
    """Whether an attempt goes on from what the last one kept in the run's store, for which it needs the same."""

    launched: bool = False
    """Whether it can run as a job on the cluster: it takes `launcher`, and as `cluster` the knobs of the table `CLUSTER`."""

    is_heavy: bool = False
    """Which line of `SIZES` is its own."""

    looks_anew: bool = False
    """Whether no cache may answer for it: what it does depends on more than its inputs."""

    shown: tuple[str, ...] = ()
    """The numbers that are worth a reader's glance, as far as the step reports them."""

    @property
    def knobs(self) -> str:
        """The table of its knobs; empty where it has none."""
        return (self.table or self.name) if self.config else ""


_BOTH, _TEST = ("training", "batch"), ("experiment",)
_BEST = "recommendations"


def _baseline(name: str, *, table: str = "", about: str = "") -> Step:
    return Step(
        name=name,
        room="baseline",
        component="baseline",
        part="baselines",
        within="baselines",
        config="BaselineConfig",
        table=table,
        about=about,
        is_heavy=True,
        shown=("validation_auc", "rounds", "trials"),
    )


STEPS = {
    step.name: step
    for step in (
        Step(
            name="resolve", room="champion", component="resolve", pipelines=("batch",), opens_store=True, looks_anew=True,
        ),
        Step(name="fetch", room="champion", component="fetch", pipelines=("batch",), opens_store=True),
        Step(
            name="ingest", room="ingest", component="ingest", pipelines=_BOTH, config="IngestConfig", opens_store=True,
            is_heavy=True,
            shown=("impressions_out", "jobs_out", "users_out", "searches", "impressions_refused"),
        ),
        Step(
            name="entities", room="entities", component="entities", pipelines=_BOTH, config="EntitiesConfig",
            shown=("titles_covered", "queries_covered"),
        ),
        Step(
            name="finetune", room="encoder", component="finetune", config="FinetuneConfig", resumes=True, launched=True,
            is_heavy=True,
            plain={"finetune_epochs": "epochs", "finetune_max_clicks": "max_clicks"},
            about="; `epochs` 0 keeps the base model",
            shown=("accepted_tuned_encoder", "train_clicks", "auc_shown_jobs_before", "auc_shown_jobs_after"),
        ),
        Step(
            name="embed", room="encoder", component="embed", pipelines=_BOTH, config="EmbedConfig", resumes=True,
            launched=True, is_heavy=True, shown=("texts", "dim"),
        ),
        Step(
            name="features", room="features", component="features", config="FeaturesConfig", opens_store=True,
            is_heavy=True, shown=("rows", "features"),
        ),
        Step(
            name="tune", room="tuning", component="tune", part="tune", config="TuningConfig", resumes=True, launched=True,
            is_heavy=True,
            shown=("best", "untuned", "trials", "pruned", "failed"),
        ),
        Step(
            name="ranker", room="ranker", component="ranker", config="RankerConfig", resumes=True, launched=True, is_heavy=True,
            plain={"ranker_epochs": "training.epochs", "ranker_members": "training.members"},
            shown=("validation_auc", "epochs_of_first_network", "rows_per_second"),
        ),
        _baseline("baseline", about=", for the first two baselines"),
        _baseline("baseline_cos", table="baseline"),
        _baseline("baseline_full", about=", for the strongest baseline, which takes several times as long"),
        Step(
            name="candidates", room="recommend", component="candidates", pipelines=_BOTH, within=_BEST,
            config="CandidatesConfig", shown=("searches", "candidates"),
            preset={"batch": {"split": "all", "latest_per_user": True, "answer_at": "end"}},
        ),
        Step(
            name="candidate_features", room="features", component="features", pipelines=_BOTH, within=_BEST,
            config="FeaturesConfig", table="features", opens_store=True, is_heavy=True, shown=("rows",),
        ),
        Step(name="score", room="ranker", component="score", pipelines=_BOTH, within=_BEST),
        Step(
            name="recommend", room="recommend", component="recommend", pipelines=_BOTH, within=_BEST, config="RecommendConfig",
            plain={"recommend_top_k": "top_k"},
            shown=("searches", "recommendations"),
        ),
        Step(
            name="champion_resolve", room="champion", component="resolve", part="champion", opens_store=True, looks_anew=True,
        ),
        Step(name="champion_fetch", room="champion", component="fetch", part="champion", opens_store=True),
        Step(
            name="champion_embed", room="encoder", component="embed", part="champion", config="EmbedConfig", table="embed",
            resumes=True, launched=True, is_heavy=True, shown=("texts", "dim"),
        ),
        Step(
            name="champion_features", room="features", component="features", part="champion", config="FeaturesConfig",
            table="features", opens_store=True, is_heavy=True, shown=("rows",),
        ),
        Step(name="champion", room="ranker", component="score", part="champion"),
        Step(
            name="evaluation", room="evaluation", component="evaluation", config="EvaluationConfig", opens_store=True,
            shown=("auc", "map_at_3", "map_at_3_lift_pct_vs_xgboost", "map_at_3_lift_pct_vs_champion"),
        ),
        Step(name="bundle", room="serving", component="bundle", part="bundle", is_heavy=True, shown=("bytes",)),
        Step(
            name="deploy", room="deploy", component="deploy", part="deploy", config="DeployConfig", opens_store=True,
            looks_anew=True,
        ),
        Step(name="record", room="champion", component="record", pipelines=_BOTH, opens_store=True, looks_anew=True),
        Step(
            name="simulate", room="experiment", component="simulate_test", pipelines=_TEST, part="simulate",
            config="SimulateConfig", shown=("users", "days", "rows"),
        ),
        Step(
            name="plan", room="experiment", component="plan_test", pipelines=_TEST, part="plan", config="PlanConfig",
            opens_store=True, is_heavy=True,
            plain={"experiment_effect": "effect"},
            shown=("users_cuped", "days_cuped", "mailings_cuped"),
        ),
        Step(
            name="analyse", room="experiment", component="analyse_test", pipelines=_TEST, config="AnalysisConfig",
            opens_store=True, is_heavy=True, looks_anew=True,
            plain={
                "experiment_control": "control", "experiment_treated": "treated", "experiment_days": "planned_days",
                "experiment_look_days": "look_days",
            },
            shown=("uplift_pct", "uplift_low_pct", "uplift_high_pct", "days", "units"),
        ),
    )
}  # fmt: skip


CLUSTER = Step(
    name="cluster", room="cluster", component="", config="ClusterConfig", about="; only with another `launcher` than local"
)
"""No step, but the table of knobs that all launched steps share: their jobs' pods."""
SEARCH = "tune"
"""The table of knobs of the step whose jobs are a search's trials."""


def parts_of(pipeline: str) -> frozenset[str]:
    """The parts that a pipeline can have."""
    return frozenset(step.part for step in STEPS.values() if step.part and pipeline in step.pipelines)


def with_part(part: str) -> frozenset[str]:
    """The pipelines that can have a part."""
    return frozenset(pipeline for step in STEPS.values() if step.part == part for pipeline in step.pipelines)


def parts(pipeline: str, having: Iterable[str] = (), lacking: Iterable[str] = ()) -> frozenset[str]:
    """The parts of a pipeline: its own, with some that it does not have by itself, without some that it has.

    Raises:
        ConfigError: the pipeline has no such part.
    """
    known = parts_of(pipeline)
    having, lacking = set(having), set(lacking)
    having |= {needed for part in having & known for needed in PARTS[part].needs}
    for part in sorted((having | lacking) - known):
        remedy = f"Its parts: {', '.join(sorted(known))}." if known else "It has no parts to choose."
        raise ConfigError(f"the pipeline {pipeline} has no part {part!r}", where=f"the pipeline {pipeline}", remedy=remedy)
    for part in sorted(having & lacking):
        raise ConfigError(f"the part {part!r} is asked for and left out", where=f"the pipeline {pipeline}", remedy="Choose.")
    return frozenset({part for part in known if PARTS[part].is_default} | having) - lacking


def of(pipeline: str, chosen: frozenset[str]) -> list[Step]:
    """The steps of a pipeline that has these parts."""
    return [step for step in STEPS.values() if pipeline in step.pipelines and (not step.part or step.part in chosen)]


def configs(chosen: Iterable[Step] = tuple(STEPS.values())) -> dict[str, Step]:
    """Table of knobs -> the first of these steps that has it."""
    found: dict[str, Step] = {}
    for step in chosen:
        if step.knobs:
            found.setdefault(step.knobs, step)
        if step.launched:
            found.setdefault(CLUSTER.knobs, CLUSTER)
    return found
