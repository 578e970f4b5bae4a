"""The report as data: verdict, slices, kinds of search, single searches. `tritower.pages` makes the page of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.disagreements import Disagreement
from tritower.evaluation.estimate import METRICS, RANKING, Estimate
from tritower.evaluation.gate import Decision
from tritower.evaluation.rows import Rows
from tritower.evaluation.wording import COLOURS, LABELS, NAMES, NOT_JUDGED, SLICES, ends, number, percent
from tritower.evaluation.wording import METRICS as METRIC_NAMES
from tritower.metrics.intervals import Interval
from tritower.pages import page
from tritower.pages.drawing import Drawing

_WHERE = {
    "randomised": "on searches shown in random order",
    "ipw": "on logged searches, clicks weighted by inverse examination",
    "logged": "on searches as logged",
}
PROVENANCE = {
    "truth": (
        "No public data set holds job queries, jobs shown and not clicked, texts and histories at once. These figures are of a "
        "generated log whose true click probabilities are known; the oracle ranks by them."
    ),
    "real": (
        "These figures are of the log that was given. Its true click probabilities are not known, so the distance to the best "
        "possible ranking is not either."
    ),
}
EXPLANATIONS = {
    "randomised": (
        "Jobs were shown in random order, so what was clicked does not depend on who ranked the page. This is the slice that "
        "decides: it says which ranker users would prefer."
    ),
    "ipw": (
        "A click far down the page was less likely to happen, so it stands for more clicks that did not: each click counts by "
        "the inverse of how often its position is examined. This corrects for where jobs stood, not for which jobs were shown."
    ),
    "redrawn": (
        "The log is generated, so the probability of a click on every job, once seen, is known. Here clicks are drawn anew "
        "from those probabilities, as if every job on the page had been seen: no position bias at all, and far more clicks "
        "than the random searches have. A real log has no such slice."
    ),
    "logged": (
        "Jobs were ordered by the ranker then in use. Its favourites stood at the top and were seen more, so these clicks "
        "favour rankers that resemble it. Read the figures as a check, not as the verdict."
    ),
}
TableRows = list[Sequence[str | page.Cell]]
KIND_LIFTS = ("auc", "map@1", "map@3")


def whole(
    *,
    decision: Decision,
    searches: int,
    warnings: Sequence[str],
    notes: Sequence[str],
    sentences: Sequence[str],
    provenance: str,
    sections: Sequence[page.Section],
    config: EvaluationConfig,
) -> page.Page:
    """The report of an evaluation: the gate's verdict, why, and the sections of slices and searches."""
    reasons = page.Items(items=[page.Item(text=reason) for reason in decision.reasons], title="The gate's reasons")
    compared = page.Items(items=[page.Item(text=line) for line in sentences], title="Ranker by ranker", is_ordered=False)
    why = [reasons, compared, page.Text(lines=[PROVENANCE[provenance]], style="soft")]
    return page.Page(
        name=f"{decision.verdict()}: evaluation",
        verdict=decision.sentence(),
        tone="good" if decision.opens else "bad",
        lines=[f"Judged on {searches:,} held-out searches, all later than those that the rankers were trained on."],
        warnings=warnings,
        notes=notes,
        sections=[page.Section(title="Why", blocks=why, is_open=True), *sections, _how_to_read(config)],
    )


def compared(name: str, estimate: Estimate, bases: list[str], level: float) -> list[str]:
    """The result in plain words, one line per base and one about the distance to the best possible ranking."""
    where = _WHERE[name]
    if estimate.reason:
        return [f"It cannot be judged which ranker is better {where}: {estimate.reason}."]
    lines = [] if bases else ["No other ranker was scored: whether the triple tower ranks better is not known."]
    for base in bases:
        lifts = {metric: estimate.lift("model", base, metric, level) for metric in KIND_LIFTS}
        sure = [lift.low > 0 for lift in lifts.values()]
        worse = [lift.high < 0 for lift in lifts.values()]
        word = (
            "ranks better than" if all(sure)
            else "ranks worse than" if any(worse) and not any(sure)
            else "is not clearly apart from" if not any(sure) and not any(worse)
            else "is partly ahead of"
        )  # fmt: skip
        figures = ", ".join(f"{LABELS[m]} {percent(v.value)} ({ends(v)})" for m, v in lifts.items())
        lines.append(f"The triple tower {word} {NAMES[base]} {where}: {figures}.")
    if "oracle" in estimate.value and "baseline" in estimate.value:
        share = estimate.share("model", "baseline", "oracle", "auc", level)
        if not share.reason:
            lines.append(
                f"It covers {100 * share.value:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f}) of the AUC between "
                "XGBoost on standard features and the best possible ranking."
            )
    return lines


def slice_section(
    name: str, estimate: Estimate, bases: list[str], level: float, plots: Sequence[Drawing], *, is_open: bool
) -> page.Section:
    """One slice: its size, every ranker's figures, the lifts, the drawings."""
    size = (
        f"{estimate.rows:,} impressions, {estimate.requests:,} searches, {estimate.clicks:,} clicks, "
        f"{estimate.users:,} users, worth {estimate.effective_users():,.0f} of equal weight."
    )
    blocks: list[Any] = [page.Text(lines=[EXPLANATIONS[name]]), page.Text(lines=[size], style="soft")]
    if estimate.reason:
        blocks.append(page.Text(lines=[f"Cannot be judged: {estimate.reason}."], style="note"))
    blocks.append(figures(estimate, level))
    if bases:
        title = f"Relative lift of the triple tower, paired, {100 * level:g} % interval"
        rows: TableRows = [[f"over {NAMES[base]}", *_lifts(estimate, base, RANKING, level)] for base in bases]
        blocks.append(page.Table(columns=["rival", *(LABELS[m] for m in RANKING)], rows=rows, title=title))
    return page.Section(title=SLICES[name], blocks=[*blocks, page.Plots(plots=plots)], is_open=is_open)


def figures(estimate: Estimate, level: float) -> page.Table:
    """One row per ranker: each metric with its interval."""
    rankers = [name for name in NAMES if name in estimate.value]
    rows: TableRows = []
    for ranker in rankers:
        cells = []
        for metric in METRICS:
            note = ""
            if metric in estimate.without_U[ranker]:
                interval = estimate.interval(ranker, metric, level)
                note = NOT_JUDGED if interval.reason else f"{interval.low:.4f} to {interval.high:.4f}"
            cells.append(page.Cell(text=number(estimate.value[ranker][metric]), note=note))
        rows.append([NAMES[ranker], *cells])
    columns = ["ranker", *METRIC_NAMES.values()]
    return page.Table(columns=columns, rows=rows, colours=[COLOURS[ranker] for ranker in rankers])


def kinds_section(kinds: dict[str, Estimate], rival: str, basis: str, level: float) -> page.Section:
    """The kinds of search: size, mAP@3 of model and rival, lifts with intervals."""
    about = (
        f"Relative lift of the triple tower over {NAMES[rival]} on {SLICES[basis].lower()}. A kind needs 30 searches with a "
        "click to be shown."
    )
    rows: TableRows = [
        [
            name,
            f"{value.requests:,}",
            *(number(value.value[ranker]["map@3"]) for ranker in ("model", rival)),
            *_lifts(value, rival, KIND_LIFTS, level),
        ]
        for name, value in kinds.items()
    ]
    lifts = [f"{LABELS[metric]} lift" for metric in KIND_LIFTS]
    table = page.Table(columns=["kind", "searches", "mAP@3", "mAP@3, rival", *lifts], rows=rows)
    return page.Section(title="Kinds of search", blocks=[page.Text(lines=[about]), table])


def search_sections(
    rows: Rows,
    rival: str,
    won: list[Disagreement],
    lost: list[Disagreement],
    searches: dict[int, str],
    jobs: dict[int, str],
) -> list[page.Section]:
    """Single searches, best and worst: both rankers' top jobs with the clicked ones marked."""

    def listed(ranker: str, top: tuple[int, ...]) -> page.Items:
        found = [page.Item(text=jobs[int(rows.job[row])], mark="clicked" * bool(rows.clicked[row])) for row in top]
        return page.Items(items=found, title=NAMES[ranker])

    def shown(items: list[Disagreement]) -> list[page.Fold]:
        return [
            page.Fold(
                title=searches[item.request],
                note=f"({item.ours:.2f} against {item.theirs:.2f})",
                blocks=[page.Beside(blocks=[listed("model", item.ours_top), listed(rival, item.theirs_top)])],
                is_open=number == 0,
            )
            for number, item in enumerate(items)
        ]

    about = page.Text(lines=[f"Searches with the widest gap in nDCG@10 to {NAMES[rival]}; clicked jobs are marked."])
    found = (("Where the triple tower wins most", won), ("Where it loses most", lost))
    return [page.Section(title=title, blocks=[about, *shown(items)]) for title, items in found if items]


def rates_by_position(position_N: Any, clicked_N: Any, most: int = 25) -> Any:
    """Click rate of each position from 1, relative to the first; empty without positions."""
    shown = np.bincount(position_N)[1 : most + 1].astype(float)
    clicks = np.bincount(position_N, weights=clicked_N)[1 : most + 1]
    if len(shown) == 0 or clicks[0] == 0:
        return np.empty(0)
    return (clicks / np.maximum(shown, 1)) / (clicks[0] / shown[0])


def _lifts(estimate: Estimate, base: str, metrics: Sequence[str], level: float) -> list[page.Cell]:
    return [_lift(estimate.lift("model", base, metric, level)) for metric in metrics]


def _lift(lift: Interval) -> page.Cell:
    tone: page.Tone = "good" if lift.low > 0 else "bad" if lift.high < 0 else ""
    return page.Cell(text=percent(lift.value), note=ends(lift), tone=tone)


def _how_to_read(config: EvaluationConfig) -> page.Section:
    lines = [
        "AUC is the probability that a clicked job scores above one that was not clicked.",
        "AP@K of a search is the sum over ranks k up to K of precision at k where the job at k was clicked, divided by the "
        "smaller of K and the number of clicked jobs; mAP@K is its mean over searches with a click. Equal scores are shuffled "
        "before ranking, so that the logged order cannot help.",
        "Intervals leave out each user with all searches in turn (a jackknife with correction for users of unequal weight); "
        "lifts are paired: the same user is left out of both rankers. "
        f"With fewer than {config.min_users} users or {config.min_searches} searches with a click nothing can be judged.",
        "The calibration error compares each score, which speaks of the top position, times the examination of the row's "
        f"position with the clicks, in {config.bins} bins of equal size.",
        "XGBoost has the standard features; with cosines, also the cosines of the text embeddings; with everything, also the "
        "embeddings' main components and the positions.",
    ]
    return page.Section(title="How to read this", blocks=[page.Text(lines=lines)])
