"""The fine-tuning report as data: figures before and after, the loss, a map of documents and nearest neighbours.

Legend: M documents, D dimension, Q queries.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_hex
from sklearn.decomposition import PCA

from tritower.drawable import printable
from tritower.pages import page
from tritower.pages.drawing import Drawing, canvas, few_ticks

Floats = npt.NDArray[np.float32]
MEASURES = {
    "triplet_accuracy": ("triplet accuracy", "the clicked document is nearer to the query than one passed over"),
    "auc_shown": ("AUC, shown jobs", "area under the ROC curve of the cosine, clicked against shown"),
    "map_shown": ("mAP, shown jobs", "mean average precision among the documents of the same search"),
    "map_jobs": ("mAP, all jobs", "mean average precision among all documents searched"),
    "recall@10_jobs": ("recall@10, all jobs", "clicked documents among the ten nearest of all searched"),
    "title_map": ("mAP, similar titles", "mean average precision on the judged set of similar titles"),
}
"""Measure -> what a reader sees it called, and what it means."""


def whole(facts: Mapping[str, Any]) -> page.Page:
    """The page of one fine-tuning.

    Args:
        facts: accepted, verdict, before, after (figures by measure), requests, randomised, documents, clicks, triplets, steps,
            seconds, resumed_at, loss_plot, map_plots, neighbours, settings.
    """
    order = ", all with results in random order" if facts["randomised"] else ""
    resumed = f", resumed at step {facts['resumed_at']}" if facts["resumed_at"] else ""
    trained = f"{facts['clicks']:,} clicks, {facts['triplets']:,} triplets, {facts['steps']:,} steps"
    trained += f" in {facts['seconds']:.0f} s{resumed}."
    near = [
        page.Fold(
            title=row["query"],
            blocks=[page.Beside(blocks=[page.Items(items=[page.Item(text=text) for text in row[side]], title=side)
                                        for side in ("before", "after")])],
            is_open=number == 0,
        )
        for number, row in enumerate(facts["neighbours"])
    ]  # fmt: skip
    settings = page.Table(
        columns=["setting", "value"],
        rows=[[page.spoken(name), str(value)] for name, value in facts["settings"].items() if value not in ("", None)],
        text_columns=2,
    )
    about = (
        "Documents of the most frequent occupations, the first two principal components of their vectors; one colour for each."
    )
    return page.Page(
        name="Encoder: fine-tuning",
        verdict=facts["verdict"],
        tone="good" if facts["accepted"] else "bad",
        lines=[
            f"{facts['requests']:,} held-out searches of the validation window{order}; "
            f"{facts['documents']:,} documents to search among."
        ],
        sections=[
            page.Section(title="Before and after", blocks=[figures(facts["before"], facts["after"])], is_open=True),
            page.Section(
                title="Training", blocks=[page.Text(lines=[trained]), page.Plots(plots=[facts["loss_plot"]])], is_open=True
            ),
            page.Section(title="Map of documents", blocks=[page.Text(lines=[about]), page.Plots(plots=facts["map_plots"])]),
            page.Section(title="Nearest documents", blocks=near or [page.Items(items=[])]),
            page.Section(title="Settings", blocks=[settings]),
        ],
    )


def figures(before: Mapping[str, float], after: Mapping[str, float]) -> page.Table:
    """The measures known on both sides."""
    rows: list[Sequence[str | page.Cell]] = []
    for name, (title, meaning) in MEASURES.items():
        if name in before and name in after:
            change = after[name] - before[name]
            tone: page.Tone = "good" if change > 0 else "bad" if change < 0 else ""
            cells = (f"{before[name]:.4f}", f"{after[name]:.4f}", page.Cell(text=f"{change:+.4f}", tone=tone))
            rows.append([page.Cell(text=title, note=meaning), *cells])
    return page.Table(columns=["measure", "before", "after", "change"], rows=rows)


def loss_plot(losses: Sequence[float]) -> Drawing:
    """Loss of each step and its running mean."""
    with canvas("Loss", name="loss") as drawn:
        drawn.axes.plot(losses, color=drawn.key("#b8c4d0", "each step"), linewidth=0.7)
        width = max(1, len(losses) // 20)
        mean = np.convolve(losses, np.ones(width) / width, "valid")
        drawn.axes.plot(np.arange(width - 1, len(losses)), mean, color=drawn.key("#1f5fa8", "running mean"))
        few_ticks(drawn.axes, whole=True)
        drawn.axes.set(xlabel="step", ylabel="loss")
    return drawn.drawing()


def map_plots(before_MD: Floats, after_MD: Floats, group_M: Sequence[str]) -> list[Drawing]:
    """Two maps, before and after, the first two principal components of each, one colour per group."""
    names, drawings = sorted(set(group_M)), []
    for title, vector_MD in (("Before", before_MD), ("After", after_MD)):
        with canvas(title, name=f"map {title}", height=300) as drawn:
            point_M2 = PCA(n_components=2, random_state=0).fit_transform(vector_MD)
            for number, name in enumerate(names):
                inside = np.asarray([group == name for group in group_M])
                colour = to_hex(f"C{number}")
                drawn.axes.scatter(point_M2[inside, 0], point_M2[inside, 1], s=9, color=colour)
                if len(names) > 1:
                    drawn.key(colour, name)
            drawn.axes.set_xticks([])
            drawn.axes.set_yticks([])
        drawings.append(drawn.drawing())
    return drawings


def neighbours(
    queries: Sequence[str], documents: Sequence[str], before: tuple[Floats, Floats], after: tuple[Floats, Floats], top: int = 5
) -> list[dict[str, Any]]:
    """The `top` nearest documents of each query; `before` and `after` are (query (Q, D), document (M, D)) vectors."""
    found = []
    for query_QD, document_MD in (before, after):
        order_QM = np.argsort(-(query_QD @ document_MD.T), axis=1, kind="stable")[:, :top]
        found.append([[printable(documents[m]) for m in row] for row in order_QM])
    return [{"query": printable(query), "before": old, "after": new} for query, old, new in zip(queries, *found, strict=True)]
