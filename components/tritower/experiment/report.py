"""The report of a test, for somebody who is no statistician: the verdict, a picture of how sure it is, then the rest."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from tritower.drawable import printable
from tritower.experiment.analysis import Result, sure_of
from tritower.experiment.config import AnalysisConfig
from tritower.experiment.ratio import Effect
from tritower.experiment.tables import Found
from tritower.pages import page
from tritower.pages.drawing import Drawing, canvas, few_ticks

_BLUE, _GREY, _ORANGE, _DARK = "#2563eb", "#94a3b8", "#ea580c", "#0f172a"
_TONES: dict[str, page.Tone] = {"invalid": "bad", "stop": "good", "go on": "", "ended": ""}
_Z = 1.959964


def html(found: Found, result: Result, config: AnalysisConfig) -> str:
    """The page."""
    assert result.effect is not None and result.plain is not None and result.mismatch is not None
    users = " and ".join(
        f"{found.units.get(arm, 0):,} users saw {printable(arm, 40)}" for arm in (config.control, config.treated)
    )
    control, treated = (result.ratios[arm] for arm in (config.control, config.treated))
    harmed = any(rail.state == "harmed" for rail in result.rails)
    worse = result.decision == "stop" and result.effect.relative < 0
    lines = [
        f"{users}, over {found.days} of {config.planned_days} planned days.",
        f"Of 1,000 jobs shown, {1000 * control:,.1f} were clicked with {printable(config.control, 40)} and "
        f"{1000 * treated:,.1f} with {printable(config.treated, 40)}.",
    ]
    if found.has_past:
        lines.append(
            f"Counted plainly that is {_percent(result.plain.relative)}. Users who clicked more before the test click more "
            f"in it, whatever they see; allowing for that (CUPED) gives {_percent(result.effect.relative)}."
        )
    return page.html(
        page.Page(
            name="Online test",
            verdict=printable(result.sentence, 400),
            tone="bad" if harmed or worse else _TONES[result.decision],
            lines=lines,
            warnings=[printable(f"{text[0].upper()}{text[1:]}.", 400) for text in result.reasons]
            + [printable(text, 400) for text in result.warnings],
            notes=[printable(text, 400) for text in result.notes],
            sections=[
                _course(result, config),
                _believed(found, result, config),
                _rails(result),
                _segments(result, config),
                _habit(result, config),
                _how(found, result, config),
            ],
        )
    )


def _course(result: Result, config: AnalysisConfig) -> page.Section:
    looks = [
        [
            f"day {look.day}",
            _percent(look.effect.relative),
            _span(look.effect.interval(look.bound)),
            "yes" if look.crossed else "no",
        ]
        for look in result.looks
    ]
    return page.Section(
        title="How it went",
        is_open=True,
        blocks=[
            page.Plots(plots=[_cumulative(result, config), _daily(result)]),
            page.Table(
                columns=("look", "uplift", f"{1 - config.alpha:.0%} sure to lie in", "may one stop?"),
                rows=looks,
                title="The planned looks",
            ),
            page.Text(
                style="soft",
                lines=[
                    "A test that is looked at every day finds something sooner or later, even where there is nothing. So the "
                    "first looks ask for much more than the last one, and only a planned look decides. The pale band holds on "
                    "every day at once; it is wider."
                ],
            ),
        ],
    )


def _cumulative(result: Result, config: AnalysisConfig) -> Drawing:
    with canvas("Uplift so far", name="Uplift so far", height=300) as drawn:
        axes, day_D = drawn.axes, np.arange(1, len(result.by_day) + 1)
        known = np.array([0 < effect.log_error < math.inf for effect in result.by_day])
        if known.any():
            value_D, low_D, high_D = _lines(
                [e for e, is_known in zip(result.by_day, known, strict=True) if is_known], lambda _: _Z
            )
            reaches = iter([reach for reach, is_known in zip(result.sequence_by_day, known, strict=True) if is_known])
            _, wide_low, wide_high = _lines(
                [e for e, is_known in zip(result.by_day, known, strict=True) if is_known], lambda e: next(reaches) / e.log_error
            )
            at = day_D[known]
            axes.fill_between(at, wide_low, wide_high, color=_GREY, alpha=0.2, linewidth=0)
            axes.fill_between(at, low_D, high_D, color=_BLUE, alpha=0.25, linewidth=0)
            axes.plot(at, value_D, color=drawn.key(_BLUE, "uplift with CUPED, 95 % if this were the only look"), linewidth=1.8)
            drawn.key(_GREY, "sure on all days at once")
            reach = max(abs(value_D[len(value_D) // 4 :]).max() * 2, (high_D - low_D)[-1] * 2.5, 1.0)
            axes.set_ylim(-reach, reach)
        for look in result.looks:
            low, high = (100 * end for end in look.effect.interval(look.bound))
            colour = _ORANGE if look.crossed else _DARK
            axes.plot([look.day, look.day], [low, high], color=colour, linewidth=1.6)
        if result.looks:
            drawn.key(_DARK, "a planned look")
        if any(look.crossed for look in result.looks):
            drawn.key(_ORANGE, "a planned look that may stop the test")
        axes.axhline(0, color="#64748b", linewidth=1)
        axes.set(xlabel="day", ylabel="uplift, %", xlim=(0.5, max(config.planned_days, len(day_D)) + 0.5))
        few_ticks(axes, whole=True)
    return drawn.drawing()


def _daily(result: Result) -> Drawing:
    with canvas("Uplift of each day alone", name="Uplift by day", height=300) as drawn:
        axes = drawn.axes
        days = [(day, e) for day, e in enumerate(result.of_day, 1) if 0 < e.log_error < math.inf]
        if days:
            value_D, low_D, high_D = _lines([effect for _, effect in days], lambda _: _Z)
            errors = np.stack([value_D - low_D, high_D - value_D])
            at = [day for day, _ in days]
            axes.errorbar(
                at, value_D, yerr=errors, fmt="o", color=drawn.key(_BLUE, "that day, 95 %"), markersize=3, elinewidth=1
            )
            reach = max(float(np.quantile(np.abs([low_D, high_D]), 0.9)), 1.0)
            axes.set_ylim(-reach, reach)
        axes.axhline(0, color="#64748b", linewidth=1)
        axes.set(xlabel="day", ylabel="uplift, %")
        few_ticks(axes, whole=True)
    return drawn.drawing()


def _lines(effects: Sequence[Effect], z: Callable[[Effect], float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Percent: value, low, high."""
    ends = np.array([(effect.relative, *effect.interval(z(effect))) for effect in effects]).T * 100
    return ends[0], ends[1], np.minimum(ends[2], 1e4)


def _believed(found: Found, result: Result, config: AnalysisConfig) -> page.Section:
    assert result.mismatch is not None
    counts = [
        [printable(arm, 40), f"{found.assigned.get(arm, 0):,}", f"{result.mismatch.expected[arm]:,.0f}"]
        for arm in (config.control, config.treated)
    ]
    word = "not as planned" if result.mismatch.is_bad else "as planned"
    left = [
        [printable(reason, 80), f"{count:,}"] for reason, count in [*found.left_out.items(), *found.clocks.items()] if count
    ]
    return page.Section(
        title="May one believe it?",
        is_open=bool(result.reasons),
        blocks=[
            page.Table(
                columns=("arm", "units", "expected"),
                rows=counts,
                title=f"Units by arm: {word} ({_p(result.mismatch.p)})",
            ),
            page.Table(columns=("left out, or odd", "count"), rows=left, title="What does not count"),
        ],
    )


def _rails(result: Result) -> page.Section:
    rows: list[list[str | page.Cell]] = [
        [
            page.Cell(text=printable(rail.guardrail.name, 60), tone="bad" if rail.state == "harmed" else ""),
            _percent(rail.change),
            _span((rail.low, rail.high)),
            rail.state,
        ]
        for rail in result.rails
    ]
    return page.Section(
        title="What must not get worse",
        blocks=[page.Table(columns=("figure", "change", "sure on all days at once", "verdict"), rows=rows)],
    )


def _segments(result: Result, config: AnalysisConfig) -> page.Section:
    rows: list[list[str | page.Cell]] = [
        [
            page.Cell(text=printable(f"{part.column}: {part.value}", 80), note=f"{part.users:,} units"),
            _percent(part.effect.relative),
            _span(part.effect.interval(_Z)),
            f"{'yes' if part.p < config.alpha else 'no'} ({_p(part.p)})",
        ]
        for part in result.segments
    ]
    return page.Section(
        title="Parts of the users",
        blocks=[
            page.Table(columns=("part", "uplift", "95% sure to lie in", "is it shown?"), rows=rows),
            page.Text(
                style="soft",
                lines=[
                    "What is shown allows for the number of parts: of many, one seems to show something by chance. These are "
                    "for ideas; what a part seems to show wants a test of its own."
                ],
            ),
        ],
    )


def _habit(result: Result, config: AnalysisConfig) -> page.Section:
    if result.novelty is None:
        lines = [f"Nobody was seen for longer than {config.look_days} days."]
    else:
        change, p = math.expm1(result.novelty[0]), sure_of(result.novelty)
        word = "no sign that it wears off" if p > config.alpha else "it " + ("wears off" if change < 0 else "grows")
        lines = [
            f"After a user's first {config.look_days} days the ratio of the two arms has changed by {_percent(change)} "
            f"({_p(p)}): {word}."
        ]
    return page.Section(title="Is it the novelty?", blocks=[page.Text(lines=lines)])


def _how(found: Found, result: Result, config: AnalysisConfig) -> page.Section:
    assert result.effect is not None and result.plain is not None
    ratio = result.plain.log_error / result.naive_error if 0 < result.naive_error < math.inf else math.nan
    lines = [
        f"Uplift without CUPED: {_percent(result.plain.relative)}; CUPED takes away {result.saved:.0%} of its variance."
        if found.has_past
        else f"Uplift: {_percent(result.plain.relative)}. There is no past of these users: CUPED would need it.",
        "Errors come from users, by the delta method. "
        f"Taking impressions as independent would give errors {ratio:.1f} times too small."
        if ratio > 1
        else "Errors come from users, by the delta method.",
        f"Units with more than {found.cap:,.0f} impressions (quantile {config.cap_quantile:g}) count with as many.",
        f"A click counts within {config.click_window_h:g} hours. Looks: O'Brien-Fleming spending, {config.alpha:g} two-sided.",
    ]
    return page.Section(title="How it was worked out", blocks=[page.Text(lines=lines)])


def _percent(value: float) -> str:
    return f"{value:+.1%}" if math.isfinite(value) else "unknown"


def _p(value: float) -> str:
    return f"p = {value:.2g}" if value >= 0.001 else "p < 0.001"


def _span(ends: tuple[float, float]) -> str:
    low, high = ends
    return "not known" if low <= -1 or not math.isfinite(high) or high > 10 else f"{low:+.1%} to {high:+.1%}"
