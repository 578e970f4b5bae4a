"""Knobs of the `entities` step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from tritower.config import Removed, check

Method = Literal["combined", "gazetteer", "ner", "spacy"]


@dataclass(frozen=True, kw_only=True)
class EntitiesConfig:
    """How entities are found."""

    FORMER: ClassVar[Mapping[str, str | Removed]] = {
        "rows_per_batch": Removed("texts are read 65,536 at a time", off=65_536),
    }

    method: Method = "combined"
    """`combined`: phrase lookup, and the small NER in texts the lookup does not explain whole. `gazetteer` or `ner`: one of
    the two alone. `spacy`: the pipeline named in `spacy_model`. The README compares them; the default is the best."""

    ner_model: str = ""
    """File of a model written by `python -m tritower.entities train`; empty for the one that ships with the package."""

    spacy_model: str = ""
    """Package name or folder of a spaCy pipeline, such as `en_core_web_sm`; needed for the method `spacy` only."""

    companies: bool = True
    """Look for the employers of the dataset's own job table too (label COMPANY)."""

    def __post_init__(self) -> None:
        check(self.method != "spacy" or bool(self.spacy_model), "spacy_model", self.spacy_model, "that names a spaCy pipeline")

    @property
    def needless(self) -> tuple[str, ...]:
        """Packages that spaCy imports where they are there, two seconds for torch alone. Our own model computes with NumPy."""
        return () if self.method == "spacy" else ("torch", "tensorflow", "mxnet", "cupy")
