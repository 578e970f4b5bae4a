"""What an online test of 22 million e-mails in six weeks can tell: the figures and the picture of docs/online-test.md.

    python -m tools.online_case            # rewrites the page's tables and docs/pictures/online-test.svg

Published are the e-mails, the weeks and the uplift. What else the figures need is assumed, and `Case` says so.
"""

import dataclasses
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import brentq
from scipy.stats import norm
from tritower.experiment import planning, ratio, sequential
from tritower.experiment.moments import Moments

_DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = _DOCS / "online-test.md", _DOCS / "pictures" / "online-test.svg"
ALPHA, POWER = 0.05, 0.8
_Z = float(norm.isf(ALPHA / 2))
_BLUE, _ORANGE, _GREY, _GREEN = "#2563eb", "#c2410c", "#64748b", "#15803d"


@dataclass(frozen=True, kw_only=True)
class Case:
    """The test; what is not published is assumed."""

    mails: float = 22e6
    """Of both arms together; published as about 22 million."""
    weeks: int = 6
    """Published."""
    uplift: float = 0.086
    """Published."""
    click_through: float = 0.03
    """Assumed: clicks a mail."""
    mails_per_week: float = 2.0
    """Assumed: of a user."""
    spread: float = 1.0
    """Assumed: standard deviation over mean of how many mails users get."""
    likeness: float = 1 / 7
    """Assumed: correlation of two mails' clicks of one user; that of the simulated users."""
    saved: float = 0.5
    """Assumed: share of the variance between users that their past foretells (CUPED)."""

    @property
    def users(self) -> int:
        """In both arms."""
        return round(self.mails / (self.mails_per_week * self.weeks))

    def user(self, weeks: float) -> Moments:
        """Clicks and mails of a user after so many weeks: mails are Poisson about a rate of the user's own."""
        mails, rate = self.mails_per_week * weeks, self.click_through
        spread = mails + (self.spread * mails) ** 2
        clicks = rate * (1 - rate) * (mails + self.likeness * (spread + mails**2 - mails)) + rate**2 * spread
        return Moments(
            self.users, np.array([rate * mails, mails]), np.array([[clicks, rate * spread], [rate * spread, spread]])
        )

    def error(self, weeks: float, *, share: float = 1.0) -> float:
        """Standard error of the log uplift, of this share of the users."""
        return math.sqrt(ratio.ratio(self.user(weeks)).log_variance * 4 / share)

    def naive_error(self, weeks: float) -> float:
        """The same if mails were independent."""
        return math.sqrt(4 * (1 - self.click_through) / self.click_through / (self.mails * weeks / self.weeks))

    def cuped_error(self, weeks: float) -> float:
        """The same with the users' past, which foretells a share of what parts users, and nothing of chance."""
        alone = dataclasses.replace(self, likeness=0.0).error(weeks) ** 2
        return math.sqrt(self.error(weeks) ** 2 - self.saved * (self.error(weeks) ** 2 - alone))


def looked(case: Case, weeks: int) -> tuple[list[float], list[float]]:
    """Information at weekly looks as shares of the whole, and the bounds."""
    information = [case.error(week) ** -2 for week in range(1, weeks + 1)]
    bounds = sequential.bounds(information, ALPHA, [week / weeks for week in range(1, weeks + 1)])
    return [one / information[-1] for one in information], bounds


def found_weekly(case: Case, weeks: int) -> float:
    """The smallest uplift that weekly looks find with the power."""
    shares, bounds = looked(case, weeks)
    drift = brentq(lambda one: sequential.power(shares, bounds, one)[-1] - POWER, 1.0, 9.0, xtol=1e-5)
    return math.expm1(drift * case.error(weeks))


def others(case: Case) -> dict[str, Case]:
    """With other assumptions."""
    return {
        "as above": case,
        "1 % click-through": dataclasses.replace(case, click_through=0.01),
        "10 % click-through": dataclasses.replace(case, click_through=0.1),
        "one mail a day": dataclasses.replace(case, mails_per_week=7.0),
        "a mail in two weeks": dataclasses.replace(case, mails_per_week=0.5),
        "users hardly differ (.02)": dataclasses.replace(case, likeness=0.02),
        "users differ much (.4)": dataclasses.replace(case, likeness=0.4),
        "2.2 million mails": dataclasses.replace(case, mails=2.2e6),
    }


def interval(case: Case, error: float) -> str:
    """Of the published uplift."""
    return " to ".join(f"{math.expm1(math.log1p(case.uplift) + sign * _Z * error):+.1%}" for sign in (-1, 1))


def tables(case: Case) -> str:
    """The page's tables, and a sentence on looks."""
    return "\n\n".join("\n".join(lines) for lines in (_by_week(case), _by_assumption(case), _by_part(case), _by_looks(case)))


def _by_week(case: Case) -> list[str]:
    once = planning.drift(ALPHA, POWER)
    lines = _head("weeks", "mails", "one look", "weekly looks", "one look, CUPED", "one look, if mails were independent")
    for week in range(1, case.weeks + 1):
        sizes = [planning.found_with(case.user(week), case.users), found_weekly(case, week)]
        sizes += [math.expm1(once * error) for error in (case.cuped_error(week), case.naive_error(week))]
        lines.append(_row(str(week), f"{case.mails * week / case.weeks / 1e6:.1f} M", *(f"{one:.2%}" for one in sizes)))
    return lines


def _by_assumption(case: Case) -> list[str]:
    sure = f"interval of {case.uplift:+.1%}, clustered by user"
    lines = _head("assumed", "users", sure, "if mails were independent", "times too narrow", "smallest uplift found")
    for name, one in others(case).items():
        error, naive = one.error(one.weeks), one.naive_error(one.weeks)
        least, users = planning.found_with(one.user(one.weeks), one.users), f"{one.users / 1e6:.2f} M"
        lines.append(_row(name, users, interval(one, error), interval(one, naive), f"{error / naive:.1f}", f"{least:.1%}"))
    return lines


def _by_part(case: Case) -> list[str]:
    once = planning.drift(ALPHA, POWER)
    lines = _head("part of the users", "smallest uplift found in it", "smallest difference to the rest found")
    for share in (0.5, 0.1, 0.01, 0.001):
        part, rest = case.error(case.weeks, share=share), case.error(case.weeks, share=1 - share)
        lines.append(_row(f"{share:.1%}", *(f"{math.expm1(once * error):.1%}" for error in (part, math.hypot(part, rest)))))
    return lines


def _by_looks(case: Case) -> list[str]:
    shares, bounds = looked(case, case.weeks)
    stopped = sequential.power(shares, bounds, math.log1p(case.uplift) / case.error(case.weeks))
    once = planning.drift(ALPHA, POWER)
    price = (math.log1p(found_weekly(case, case.weeks)) / (once * case.error(case.weeks))) ** 2 - 1
    enough = planning.users_for(case.user(case.weeks), case.uplift, drift=once)
    return [
        f"Weekly looks: bounds {', '.join(f'{one:.2f}' for one in bounds)} standard errors. An uplift of {case.uplift:.1%} is",
        f"beyond the first in {stopped[0]:.1%} of tests. The price: {price:.1%} more users for the same power. The first",
        f"week brings {shares[0]:.0%} of what six weeks tell, for the same users come back. To find {case.uplift:.1%} takes",
        f"{enough:,} users.",
    ]


def _head(*columns: str) -> list[str]:
    return [_row(*columns), "|" + "---|" * len(columns)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _least(axes: Axes, case: Case) -> None:
    once, weeks = planning.drift(ALPHA, POWER), np.linspace(0.5, case.weeks, 60)
    lines = [
        (case.naive_error, _GREY, "--", "if mails were independent (they are not)"),
        (case.cuped_error, _GREEN, "-", "with the users' past (CUPED)"),
        (case.error, _BLUE, "-", "clustered by user"),
    ]
    for error, colour, line, label in lines:
        axes.plot(
            weeks, [100 * math.expm1(once * error(week)) for week in weeks], line, color=colour, linewidth=2.5, label=label
        )
    axes.axhline(100 * case.uplift, color=_ORANGE, linewidth=2)
    axes.text(0.6, 100 * case.uplift * 0.94, "published: +8.6 %", color=_ORANGE, va="top")
    axes.set(yscale="log", ylim=(0.5, 10), xlim=(0.5, case.weeks), xlabel="weeks", ylabel="uplift, %")
    axes.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
    axes.minorticks_off()
    axes.set_title("The smallest uplift that four of five tests find", loc="left", weight="bold")
    axes.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.84))


def _sure(axes: Axes, case: Case) -> None:
    names = others(case)
    for at, one in enumerate(names.values()):
        for error, apart, colour, label in (
            (one.error(one.weeks), -0.13, _BLUE, "clustered by user"),
            (one.naive_error(one.weeks), 0.17, _GREY, "if mails were independent"),
        ):
            low, high = (100 * math.expm1(math.log1p(one.uplift) + sign * _Z * error) for sign in (-1, 1))
            axes.plot([low, high], [at + apart] * 2, color=colour, linewidth=5, label=label if not at else None)
    axes.axvline(100 * case.uplift, color=_ORANGE, linewidth=1.5)
    axes.set_yticks(range(len(names)), list(names))
    axes.set(ylim=(len(names) - 0.5, -1.6), xlim=(4, 13), xlabel="95 % interval of the uplift, %")
    axes.set_title("What is sure about +8.6 %, by what one assumes", loc="left", weight="bold")
    axes.legend(frameon=False, loc="upper right", ncols=2)


def _found(axes: Axes, case: Case) -> None:
    uplift = np.linspace(0, 0.05, 100)
    few = dataclasses.replace(case, mails=case.mails / 10)
    lines = [
        (case, 6, _BLUE, "six weeks, 22 million"),
        (case, 1, _GREEN, "one week of it"),
        (few, 6, _GREY, "six weeks, 2.2 million"),
    ]
    for one, weeks, colour, label in lines:
        drift = np.log1p(uplift) / one.error(weeks)
        axes.plot(100 * uplift, 100 * (norm.sf(_Z - drift) + norm.sf(_Z + drift)), color=colour, linewidth=2.5, label=label)
    axes.axhline(100 * POWER, color=_ORANGE, linewidth=1.5, linestyle=":")
    axes.set(xlabel="true uplift, %", ylabel="tests that find it, %", xlim=(0, 5), ylim=(0, 102))
    axes.set_title("How often a true uplift is found", loc="left", weight="bold")
    axes.legend(frameon=False, loc="lower right")


def picture(case: Case) -> str:
    """Three drawings below each other, 720 wide, on a ground of their own: legible on dark pages, too."""
    style = {"svg.fonttype": "none", "svg.hashsalt": "tritower", "font.size": 15, "axes.titlesize": 16, "axes.labelsize": 15}
    style |= {
        "xtick.labelsize": 15,
        "ytick.labelsize": 15,
        "legend.fontsize": 15,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(10, 15.5), layout="constrained", facecolor="white")  # 72 units an inch
        least, sure, found = figure.subplots(3, 1)
        _least(least, case)
        _sure(sure, case)
        _found(found, case)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"[ \t]+$", "", text.getvalue()[text.getvalue().index("<svg") :], flags=re.MULTILINE)


def main() -> None:
    """Write both."""
    case = Case()
    page, made = PAGE.read_text(encoding="utf-8"), tables(case)
    start, stop = "<!-- figures: python -m tools.online_case -->\n", "\n<!-- end of figures -->"
    before, after = page.split(start)[0], page.split(stop)[1]
    PAGE.write_text(before + start + made + stop + after, encoding="utf-8")
    PICTURE.write_text(picture(case), encoding="utf-8")
    print(made)


if __name__ == "__main__":
    main()
