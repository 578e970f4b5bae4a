"""Knobs of the `entities` step."""

from dataclasses import dataclass
from typing import Literal

from tritower.config import check

Method = Literal["combined", "gazetteer", "ner", "spacy"]


@dataclass(frozen=True, kw_only=True)
class EntitiesConfig:
    """How entities are found."""

    method: Method = "combined"
    """`combined`: phrase lookup, and the small NER in texts the lookup does not explain whole. `gazetteer` or `ner`: one of
    the two alone. `spacy`: the pipeline named in `spacy_model`. The README compares them; the default is the best."""

    ner_model: str = ""
    """File of a model written by `python -m tritower.entities train`; empty for the one that ships with the package."""

    spacy_model: str = ""
    """Package name or folder of a spaCy pipeline, such as `en_core_web_sm`; needed for the method `spacy` only."""

    companies: bool = True
    """Look for the employers of the dataset's own job table too (label COMPANY)."""

    rows_per_batch: int = 65_536
    """Texts read and recognised at a time; bounds the memory. At least 1."""

    def __post_init__(self) -> None:
        check(self.method != "spacy" or bool(self.spacy_model), "spacy_model", self.spacy_model, "that names a spaCy pipeline")
        check(self.rows_per_batch >= 1, "rows_per_batch", self.rows_per_batch, "of at least 1")
