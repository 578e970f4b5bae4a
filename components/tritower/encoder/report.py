"""The fine-tuning report: figures before and after, the loss, a map of documents and nearest neighbours, in one HTML file.

Legend: M documents, D dimension, Q queries.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from tritower.drawable import any_script, drawable, printable

Floats = npt.NDArray[np.float32]
MEANING = {
    "triplet_accuracy": "the clicked document is nearer to the query than one passed over",
    "auc_shown": "area under the ROC curve of the cosine, clicked against shown",
    "map_shown": "mean average precision among the documents of the same search",
    "map_jobs": "mean average precision among all documents searched",
    "recall@10_jobs": "clicked documents among the ten nearest of all searched",
    "title_map": "mean average precision on the judged set of similar titles",
}


def render(facts: Mapping[str, Any]) -> str:
    """The page; `facts` are the names that report.html uses. Texts are escaped."""
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(**facts)


def rows(before: Mapping[str, float], after: Mapping[str, float]) -> list[dict[str, Any]]:
    """Table rows of the measures known on both sides."""
    return [
        {"name": name, "before": before[name], "after": after[name], "meaning": meaning}
        for name, meaning in MEANING.items()
        if name in before and name in after
    ]


def loss_plot(losses: Sequence[float]) -> str:
    """Loss of each step and its running mean, as SVG."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(losses, color="#b8c4d0", linewidth=0.7)
    width = max(1, len(losses) // 20)
    axes.plot(np.arange(width - 1, len(losses)), np.convolve(losses, np.ones(width) / width, "valid"), color="#1f5fa8")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    return _svg(figure)


def map_plot(before_MD: Floats, after_MD: Floats, group_M: Sequence[str]) -> str:
    """Two maps side by side, the first two principal components of each, one colour per group, as SVG."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    names = sorted(set(group_M))
    for column, (title, vector_MD) in enumerate((("before", before_MD), ("after", after_MD)), start=1):
        axes = figure.add_subplot(1, 2, column)
        point_M2 = PCA(n_components=2, random_state=0).fit_transform(vector_MD)
        dots = []
        for number, name in enumerate(names):
            inside = np.asarray([group == name for group in group_M])
            dots.append(axes.scatter(point_M2[inside, 0], point_M2[inside, 1], s=9, color=f"C{number}"))
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
    if len(names) > 1:
        figure.legend(dots, [drawable(name) for name in names], loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return _svg(figure)


def neighbours(
    queries: Sequence[str], documents: Sequence[str], before: tuple[Floats, Floats], after: tuple[Floats, Floats], top: int = 5
) -> list[dict[str, Any]]:
    """The `top` nearest documents of each query; `before` and `after` are (query (Q, D), document (M, D)) vectors."""
    found = []
    for query_QD, document_MD in (before, after):
        order_QM = np.argsort(-(query_QD @ document_MD.T), axis=1, kind="stable")[:, :top]
        found.append([[printable(documents[m]) for m in row] for row in order_QM])
    return [{"query": printable(query), "before": old, "after": new} for query, old, new in zip(queries, *found, strict=True)]


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}), any_script():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
