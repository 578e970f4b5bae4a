"""Words, people and chance: the parts the world is made of."""

import difflib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tritower.errors import ConfigError
from tritower.simulate import chance, lexicon, people, step, truth, wording
from tritower.simulate.config import PRESETS, SimulateConfig

SMALL = {"impressions": 6_000, "days": 6}


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**40), min_size=1, max_size=20), st.integers(1, 8))
def test_a_number_depends_on_its_place_only(seed, rows, slots):
    stream = chance.key(seed, "test")
    both = chance.uniform(stream, np.array(rows), np.arange(slots))
    for r, row in enumerate(rows):
        alone = chance.uniform(stream, np.array([row]), np.array([slots - 1]))
        assert alone[0, 0] == both[r, slots - 1]
    assert ((both >= 0) & (both < 1)).all()


def test_numbers_are_uniform_normal_and_uncorrelated():
    rows, slots = np.arange(2_000), np.arange(50)
    u = chance.uniform(chance.key(1, "a"), rows, slots)
    other = chance.uniform(chance.key(1, "b"), rows, slots)
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-4
    bound = 4.5 / np.sqrt(u.size)
    for left, right in ((u, other), (u[1:], u[:-1]), (u[:, 1:], u[:, :-1])):
        assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < bound * 1.1
    z = chance.normal(chance.key(1, "c"), rows, slots)
    assert abs(z.mean()) < bound and abs(z.var() - 1) < 3 * bound


def test_words():
    assert lexicon.words("Nurses in the ER, C++ (Class A)") == ["nurse", "er", "c++", "class"]
    assert lexicon.words("") == []


def test_short_forms_replace_the_longest_phrase():
    short_of = {"registered nurse": "RN", "technician": "Tech", "nurse": "N"}
    assert lexicon.shorten("Psychiatric Registered Nurse", short_of) == "Psychiatric RN"
    assert lexicon.shorten("HVAC Technician", short_of) == "HVAC Tech"
    assert lexicon.shorten("Staff Nurse Technician", short_of) == "Staff N Tech"
    assert lexicon.shorten("Welder", short_of) == "Welder"


def test_relatedness_follows_the_classification_and_shared_titles():
    codes = ["29-1141.00", "29-1141.01", "29-1171.00", "29-2061.00", "11-1021.00"]
    rows = [
        {"title": f"{word} {code}", "occupation": code, "occupation_title": code, "kind": "alternate", "short": None}
        for code in codes
        for word in ("Alpha", "Beta", "Gamma", "Delta", "Epsilon", "Zeta")
    ]
    boss = {"title": "Boss", "occupation_title": "", "kind": "reported", "short": None}
    rows += [boss | {"occupation": code} for code in codes[3:]]
    # Digits and hyphens are legal in titles; the codes keep the titles of different occupations apart.
    made = lexicon.build(pa.Table.from_pylist(rows), {}, num_occupations=5, rng=np.random.default_rng(0))
    related = {(a, b): made.relatedness_OO[made.codes.index(a), made.codes.index(b)] for a in codes for b in codes}
    assert all(related[c, c] == 1 for c in codes)
    assert all(related[a, b] == related[b, a] for a in codes for b in codes)
    assert related["29-1141.00", "29-1141.01"] == pytest.approx(0.85)
    assert related["29-1141.00", "29-1171.00"] == pytest.approx(0.4)
    assert related["29-1141.00", "29-2061.00"] == pytest.approx(0.12)
    assert related["29-1141.00", "11-1021.00"] == 0
    assert related["29-2061.00", "11-1021.00"] == pytest.approx(1.5 / 7)


def test_steps_go_to_related_occupations_in_proportion():
    related = np.array([[1, 0.8, 0.4, 0], [0.8, 1, 0, 0], [0.4, 0, 1, 0], [0, 0, 0, 1]], np.float32)
    u = np.random.default_rng(0).random(40_000)
    found = np.bincount(people.step_to_related(related, np.zeros(40_000, np.int32), u), minlength=4)
    weight = np.array([0, 0.8**2 + 0.002, 0.4**2 + 0.002, 0.002])
    assert found[0] == 0
    assert stats.chisquare(found[1:], 40_000 * weight[1:] / weight.sum()).pvalue > 1e-4


def test_intent_stays_without_drift_and_moves_with_it():
    still, _ = step.build(SimulateConfig(**SMALL, drift=0, side_intent=0))
    assert (still.requests.occupation == still.users.career[still.requests.user]).all()
    side, _ = step.build(SimulateConfig(**SMALL, drift=0, side_intent=1))
    assert (side.requests.occupation == side.users.second_career[side.requests.user]).all()
    moving, _ = step.build(SimulateConfig(**SMALL, drift=1, side_intent=0))
    away = moving.requests.occupation != moving.users.career[moving.requests.user]
    assert 0.3 < away.mean() < 1
    wanted, home = moving.requests.occupation[away], moving.users.career[moving.requests.user[away]]
    any_two = moving.relatedness_OO[np.triu_indices(len(moving.relatedness_OO), 1)].mean()
    assert moving.relatedness_OO[wanted, home].mean() > 2 * any_two


@given(st.sampled_from(["registered nurse", "CDL Driver", "sous chef", "Welder"]), st.floats(0, 1, exclude_max=True))
def test_a_typo_is_one_slip_in_the_longest_word(text, u):
    wrong = wording.typo(text, u)
    longest = max(text.split(), key=len)
    kept = [w for w in text.split() if w != longest]
    assert all(w in wrong.split() for w in kept)
    assert abs(len(wrong) - len(text)) <= 1
    assert difflib.SequenceMatcher(None, text, wrong).ratio() > 0.8


def test_levels_are_written_before_or_after():
    assert wording.with_level("Nurse", 3, 0) == "Senior Nurse"
    assert wording.with_level("Nurse", 3, 3) == "Nurse III"
    assert wording.with_level("Nurse", 0, 0) == "Nurse Intern"


def test_searches_are_empty_vague_or_clear_as_asked():
    config = SimulateConfig(impressions=40_000, requests_per_session=1.0)
    world, texts = step.build(config)
    asked = np.array(texts.queries, object)[world.requests.query]
    n = len(asked)
    for share, found in (
        (config.empty_share, asked == ""),
        (config.vague_share, np.isin(asked, wording.VAGUE)),
        (config.empty_share + config.vague_share, ~texts.meant_R),
    ):
        assert abs(found.mean() - share) < 4.5 * (share * (1 - share) / n) ** 0.5 + 0.004
    assert any(q.isupper() and len(q) <= 5 for q in asked[texts.meant_R]) or config.abbreviation_share == 0
    assert len(set(texts.companies)) == len(texts.companies)


def test_searches_are_semantic(log):
    """Most jobs that a user likes share no word with the search: words alone can't find them."""
    rows = log.rows.merge(log.jobs[["job_id", "title"]], on="job_id")
    rows = rows[(rows.relevance > 0.4) & (rows["query"] != "")]
    shared = [bool(set(lexicon.words(q)) & set(lexicon.words(t))) for q, t in zip(rows["query"], rows.title, strict=True)]
    assert 0.25 < 1 - np.mean(shared) < 0.75


def test_profiles_are_partly_missing_and_about_the_career(log):
    missing = log.config.profile_missing
    n = len(log.users)
    for column in ("interests", "past_titles"):
        assert abs(log.users[column].isna().mean() - missing) < 4.5 * (missing * (1 - missing) / n) ** 0.5
    world = truth.open_world(log.place)
    assert world.users.career.shape == (n,)


@pytest.mark.parametrize(
    "knobs",
    [
        {"impressions": 5}, {"ctr": 0.9}, {"page_low": 30}, {"randomised_share": 1.5}, {"candidates": 5}, {"days": 1},
        {"start": "soon"}, {"occupations": 1},
        {"bad_rows": 0.5}, {"policy_known": 0.8, "policy_explore": 0.3}, {"seed": -1},
    ],
)  # fmt: skip
def test_knobs_are_checked(knobs):
    with pytest.raises(ConfigError):
        SimulateConfig(**knobs)


def test_a_larger_log_has_a_larger_board():
    sizes = [SimulateConfig(**PRESETS[name]) for name in ("tiny", "demo", "quality", "large")]
    for field in ("num_jobs", "num_users", "num_occupations", "num_regions"):
        values = [getattr(config, field) for config in sizes]
        assert values == sorted(values), field
    assert sizes[1].num_jobs == 6_000 and sizes[1].num_users == 8_000
