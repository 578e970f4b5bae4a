"""Draw the report of a simulated online test as it looks in a window: docs/pictures/report-online-test.png.

    python -m tools.online_picture

Needs Chromium.
"""

import tempfile
from pathlib import Path

from tritower.experiment import simulated_log, step
from tritower.experiment.config import AnalysisConfig, Faults, Guardrail, Habits

from tools.browser import Browser
from tools.pictures import write

OUT = Path("docs/pictures/report-online-test.png")


def main() -> None:
    """Simulate four of six weeks, analyse, draw."""
    rails = (Guardrail(name="unsubscribe", margin=0.3), Guardrail(name="latency_ms", of="events", margin=0.05))
    config = AnalysisConfig(salt="test", segments=("country",), guardrails=rails)
    with tempfile.TemporaryDirectory() as folder:
        log, report = Path(folder) / "log", Path(folder) / "report.html"
        faults = Faults(bots=8, twice=0.002)
        simulated_log.write(log, users=6_000, days=28, seed=0, habits=Habits(effect=0.14, segment_effect=0.05), faults=faults)
        files = {name: log / f"{name}.parquet" for name in ("shown", "past", "events")}
        step.analyse(**files, config=config, report=report)
        with Browser() as browser:
            browser.show(report.read_text(encoding="utf-8"), width=1200, height=1170)
            write(OUT, browser.picture())


if __name__ == "__main__":
    main()
