"""The page of a plan: what a test needs, and what could be found after each day."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tritower.experiment.config import PlanConfig
from tritower.pages import page
from tritower.pages.drawing import Drawing, canvas, few_ticks

_BLUE, _DARK = "#2563eb", "#0f172a"


def sentence(found: Mapping[str, Any], config: PlanConfig) -> str:
    """What is needed, with CUPED."""
    needs = f"To find {config.effect:+.1%}, a test needs {found['users_cuped']:,} users"
    if not found["days_cuped"]:
        return f"{needs}, more than the log's {found['log_days']} days bring."
    mailings = f" and {found['mailings_cuped']:,} mailings" if found["mailings_cuped"] else ""
    return f"{needs}{mailings}: {found['days_cuped']} days."


def html(found: Mapping[str, Any], config: PlanConfig) -> str:
    """The page of what `step.plan` found."""
    rows = [
        [
            name,
            _count(found[f"users{suffix}"]),
            _count(found[f"days{suffix}"], f"more than {found['log_days']}"),
            _count(found[f"mailings{suffix}"]),
        ]
        for name, suffix in (("as it is", ""), ("with CUPED", "_cuped"))
    ]
    lines = [
        f"Two arms of equal size, {config.looks} looks at equal distances. If the uplift is {config.effect:+.1%}, the test "
        f"finds it with a probability of {config.power:.0%}. If there is none, it claims one in {config.alpha:.0%} of tests.",
        f"The log has {found['log_users']:,} users in {found['log_days']} days that stand for a test. "
        f"{config.traffic:.0%} of them take part.",
    ]
    small = found["found_by_day"][-1]
    return page.html(
        page.Page(
            name="Plan of an online test",
            verdict=sentence(found, config),
            tone="" if found["days_cuped"] else "bad",
            lines=lines,
            sections=[
                page.Section(
                    title="What it takes",
                    is_open=True,
                    blocks=[
                        page.Table(columns=("how it is read", "users", "days", "mailings"), rows=rows),
                        page.Text(
                            style="soft",
                            lines=[
                                f"CUPED uses what users did before the test: {found['cuped_saved_pct']:.0f}% less variance "
                                f"in this log. The looks cost {found['inflation'] - 1:.1%} more users than a single one at "
                                "the end."
                            ],
                        ),
                    ],
                ),
                page.Section(
                    title="What could be found after each day",
                    is_open=True,
                    blocks=[
                        page.Plots(plots=[_course(found, config)]),
                        page.Text(lines=[f"All users of the log, as they are: {small:+.1%} on the last day."]),
                    ],
                ),
            ],
        )
    )


def _count(value: int | None, without: str = "not known") -> str:
    return without if value is None else f"{value:,}"


def _course(found: Mapping[str, Any], config: PlanConfig) -> Drawing:
    with canvas("Smallest uplift that would be found", name="What could be found", height=300) as drawn:
        axes, value_D = drawn.axes, 100 * np.array(found["found_by_day"])
        day_D = np.arange(found["log_days"] - len(value_D), found["log_days"]) + 1
        axes.plot(day_D, value_D, color=drawn.key(_BLUE, "without CUPED"), linewidth=1.8)
        axes.axhline(100 * config.effect, color=drawn.key(_DARK, "what is to be found"), linewidth=1, linestyle="--")
        axes.set(xlabel="days of the test", ylabel="uplift, %", xlim=(0.5, found["log_days"] + 0.5))
        axes.set_ylim(0, min(float(value_D.max()), 8 * max(float(value_D[-1]), 100 * config.effect)) * 1.05)
        few_ticks(axes, whole=True)
    return drawn.drawing()
