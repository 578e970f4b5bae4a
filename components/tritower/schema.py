"""Every table that crosses a step's border: its columns, types, ranges and keys.

Rooms never import each other; they meet in these tables. The module imports no pyarrow at its top, so that compiling a
pipeline works without it.

Legend: an *id* is the source's own text key; a *number* (`user`, `job`, `request`, `text`, `row`) is the dense integer that
ingest gives it, 0-based and equal to the row's position in its table, so that numpy can gather by it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa

Type = Literal[
    "string",
    "int16",
    "int32",
    "int64",
    "float32",
    "float64",
    "bool",
    "timestamp",
    "list<string>",
    "list<int32>",
    "list<float32>",
]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    `timestamp` is microseconds since 1970 in UTC. `required` says that a source must have the column; `nullable` that a
    row may lack a value. `low` and `high` bound numbers, both inclusive.
    """

    name: str
    type: Type
    doc: str
    required: bool = False
    nullable: bool = True
    low: float | None = None
    high: float | None = None

    @property
    def is_id(self) -> bool:
        """Whether it holds the source's own keys."""
        return self.name.endswith("_id") and self.type == "string"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A named table: columns in order, and the columns whose values together are unique."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    def names(self) -> list[str]:
        """The column names in order."""
        return [column.name for column in self.columns]

    def column(self, name: str) -> Column:
        """The column called `name`; KeyError when there is none."""
        return {column.name: column for column in self.columns}[name]

    def arrow(self) -> "pa.Schema":
        """The table as an Arrow schema; `nullable` carries over."""
        import pyarrow as pa

        return pa.schema([pa.field(c.name, arrow_type(c.type), nullable=c.nullable) for c in self.columns])


def arrow_type(name: Type) -> "pa.DataType":
    """The Arrow type for a column type of this module."""
    import pyarrow as pa

    types: dict[str, pa.DataType] = {
        "string": pa.string(),
        "int16": pa.int16(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float32": pa.float32(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "list<string>": pa.list_(pa.string()),
        "list<int32>": pa.list_(pa.int32()),
        "list<float32>": pa.list_(pa.float32()),
    }
    return types[name]


def document_text(title: str, company: str) -> str:
    """The text a job is embedded as: what the encoder's document side sees, in training and in serving."""
    return f"{title}, {company}"


def _c(name: str, type: Type, doc: str, **more: object) -> Column:
    return Column(name=name, type=type, doc=doc, **more)  # type: ignore[arg-type]


def _need(name: str, type: Type, doc: str, **more: object) -> Column:
    return Column(name=name, type=type, doc=doc, required=True, nullable=False, **more)  # type: ignore[arg-type]


_PLACE = (
    _c("city", "string", "City, as written by the source."),
    _c("region", "string", "State or province."),
    _c("country", "string", "Country."),
)

# ---------------------------------------------------------------------------------------------- raw input, DESIGN section 2

RAW_JOBS = Table(
    name="jobs",
    doc="Job adverts.",
    key=("job_id",),
    columns=(
        _need("job_id", "string", "The source's id."),
        _need("title", "string", "Title as advertised."),
        _need("company", "string", "Employer as advertised."),
        *_PLACE,
        _c("occupation", "string", "Occupation code or name, if the source knows it."),
        _c("description", "string", "Advert text."),
        _c("posted_at", "timestamp", "First shown from."),
        _c("expires_at", "timestamp", "No longer shown from."),
        _c("latitude", "float64", "Degrees north; with `longitude`, or both are missing.", low=-90, high=90),
        _c("longitude", "float64", "Degrees east.", low=-180, high=180),
    ),
)

RAW_IMPRESSIONS = Table(
    name="impressions",
    doc="One row per job shown for a search.",
    key=("request_id", "job_id"),
    columns=(
        _need("request_id", "string", "The search this row was shown for."),
        _need("ts", "timestamp", "When it was shown."),
        _need("user_id", "string", "Who searched."),
        _need("query", "string", "What was typed; may be empty."),
        _need("job_id", "string", "What was shown."),
        _need("clicked", "bool", "Whether it was clicked."),
        _c("position", "int16", "Rank on the page, 1 is the top.", low=1, high=32767),
        _c("clicked_at", "timestamp", "When it was clicked; `ts` is used where it is missing."),
        _c("city", "string", "City searched in."),
        _c("region", "string", "State or province searched in."),
        _c("country", "string", "Country searched in."),
        _c("randomised", "bool", "The request was shown in random order; false where missing."),
    ),
)

RAW_USERS = Table(
    name="users",
    doc="What is known of each user.",
    key=("user_id",),
    columns=(
        _need("user_id", "string", "The source's id."),
        _c("interests", "list<string>", "Wanted titles."),
        _c("past_titles", "list<string>", "Titles held before."),
        *_PLACE,
    ),
)

RAW_TABLES = {table.name: table for table in (RAW_JOBS, RAW_IMPRESSIONS, RAW_USERS)}

# ------------------------------------------------------------------------------------------------------ the dataset (ingest)
#
# dataset/dataset.json            counts, time ranges per split, version, fingerprint; "negatives": jobs drawn per view, 0 where
#                                 the log says what was shown (drawn rows are no impressions: nothing may count them)
# dataset/quality.json            missing values, clicks by day, findings
# dataset/jobs.parquet            DATASET_JOBS, row number = job
# dataset/users.parquet           DATASET_USERS, row number = user; also users known only from impressions
# dataset/requests.parquet        DATASET_REQUESTS, row number = request
# dataset/texts.parquet           DATASET_TEXTS, row number = text
# dataset/impressions/<split>/part-*.parquet   DATASET_IMPRESSIONS by (ts, request); `row` runs on across splits
# dataset/quarantine.parquet      DATASET_QUARANTINE

DATASET_JOBS = Table(
    name="dataset/jobs",
    doc="Clean jobs; the row number is `job`.",
    key=("job",),
    columns=(
        _need("job", "int32", "Job number.", low=0),
        *RAW_JOBS.columns,
        _need("title_text", "int32", "Text number of the title.", low=0),
        _need("document_text", "int32", "Text number of `document_text(title, company)`.", low=0),
        _c("description_text", "int32", "Text number of the description's first words; null where there is none.", low=0),
        _need("company_key", "int32", "Number of the company, equal for names that differ in case only.", low=0),
    ),
)

DATASET_USERS = Table(
    name="dataset/users",
    doc="Clean users; the row number is `user`.",
    key=("user",),
    columns=(
        _need("user", "int32", "User number.", low=0),
        *RAW_USERS.columns,
        _need("interest_texts", "list<int32>", "Text numbers of the wanted titles; empty where unknown."),
        _need("past_title_texts", "list<int32>", "Text numbers of past titles; empty where unknown."),
    ),
)

DATASET_REQUESTS = Table(
    name="dataset/requests",
    doc="Searches in time order; the row number is `request`.",
    key=("request",),
    columns=(
        _need("request", "int64", "Request number.", low=0),
        _need("request_id", "string", "The source's id."),
        _need("ts", "timestamp", "Time of the search: the earliest of its rows."),
        _need("user", "int32", "User number.", low=0),
        _need("query_text", "int32", "Text number of the query.", low=0),
        *_PLACE,
        _need("randomised", "bool", "Shown in random order."),
        _need("split", "string", "train, validation or test."),
    ),
)

DATASET_TEXTS = Table(
    name="dataset/texts",
    doc="Every distinct text once; the row number is `text`, the row of the embedding matrix.",
    key=("text",),
    columns=(
        _need("text", "int32", "Text number.", low=0),
        _need("value", "string", "The text, Unicode NFC, white space collapsed; may be empty."),
        _need("is_query", "bool", "Occurs as a query."),
        _need("is_title", "bool", "Occurs as a job title."),
        _need("is_document", "bool", "Occurs as a document (title and company)."),
        _need("is_profile", "bool", "Occurs as a wanted or past title of a user."),
        _need("is_description", "bool", "Occurs as the first words of a job's description."),
    ),
)

DATASET_IMPRESSIONS = Table(
    name="dataset/impressions",
    doc="Clean impressions in time order.",
    key=("row",),
    columns=(
        _need("row", "int64", "Impression number over all splits, in the order (ts, request).", low=0),
        _need("request", "int64", "Request number.", low=0),
        _need("ts", "timestamp", "When it was shown: the time of its request."),
        _need("user", "int32", "User number.", low=0),
        _need("job", "int32", "Job number.", low=0),
        _need("query_text", "int32", "Text number of the query.", low=0),
        _need("document_text", "int32", "Text number of the document.", low=0),
        _c("position", "int16", "Rank on the page, 1 is the top.", low=1),
        _need("clicked", "bool", "The label."),
        _c("clicked_at", "timestamp", "When the click was made; null where not clicked, never before `ts`."),
        _need("randomised", "bool", "The request was shown in random order."),
    ),
)

DATASET_QUARANTINE = Table(
    name="dataset/quarantine",
    doc="Rows that were refused, with the reason.",
    key=("table", "source", "source_row"),
    columns=(
        _need("table", "string", "jobs, impressions or users."),
        _need("source", "string", "File the row came from."),
        _need("source_row", "int64", "0-based row number in that file.", low=0),
        _need("reason", "string", "Code of the check that failed."),
        _need("detail", "string", "The value concerned, for a reader."),
        _need("record", "string", "The row as JSON text, for repair and replay."),
    ),
)

# ------------------------------------------------------------------------------------------------------- entities
#
# entities/entities.parquet       ENTITIES sorted by (text, start, end, label); spans may nest, equal rows do not occur
# entities/entities.json          {"version": 1, "config": {...}, "counts": {...}}

ENTITIES = Table(
    name="entities",
    doc="What the job NER found in each text.",
    key=("text", "start", "end", "label"),
    columns=(
        _need("text", "int32", "Text number.", low=0),
        _need("label", "string", "TITLE, SKILL, SENIORITY, COMPANY, PLACE, EMPLOYMENT or QUALIFICATION."),
        _need("value", "string", "Canonical form; for SENIORITY the name of the level, one of `vocabulary.LEVELS`."),
        _need("start", "int32", "First character of the span in the text.", low=0),
        _need("end", "int32", "Character after the span.", low=1),
    ),
)

# ------------------------------------------------------------------------------------------- embeddings, features, scores
#
# embeddings/matrix.npy           float16 (T, D), C order, L2-normalised rows, row number = text; numpy.load(mmap_mode="r")
# embeddings/encoder.json         {"name", "hash", "dim", "texts", "normalised": true, ...}
#
# features/features.json          {"version": 1, "features": [{"name", "kind", "definition", "unit", "low", "high",
#                                  "missing", "needs_embeddings"}...]} in column order
# features/<split>/part-*.parquet `features_table`, sorted by row. A run over candidates writes one split, named `candidates`.
#
# candidates/requests.parquet     DATASET_REQUESTS of the searches to answer (request numbers as in the dataset)
# candidates/candidates/part-*.parquet   DATASET_IMPRESSIONS with clicked = false, position and clicked_at null; row numbers
#                                 are the candidates' own, from 0

FEATURE_KEYS = Table(
    name="features/keys",
    doc="The columns before the features, so that training needs no join.",
    key=("row",),
    columns=tuple(DATASET_IMPRESSIONS.column(n) for n in (
        "row", "request", "ts", "user", "job", "query_text", "document_text", "position", "clicked", "randomised",
    )),
)  # fmt: skip

FEATURE_EXTRAS = (
    _c("occupation_key", "int32", "Number of the job's occupation; the numbers are this folder's own.", low=0),
    _c("description_text", "int32", "Text number of the first words of the job's description.", low=0),
)
"""The columns behind the features, null where unknown: what the ranker and the baselines read of the job besides."""


def features_table(features: Iterable[str]) -> Table:
    """The rows of a features folder: `FEATURE_KEYS`, one nullable float32 column per feature, `FEATURE_EXTRAS`.

    Args:
        features: names in the order of features.json, which says what each one means.
    """
    columns = (_c(name, "float32", "See features.json; null where missing.") for name in features)
    return Table(
        name="features",
        doc="One row per impression or candidate.",
        key=FEATURE_KEYS.key,
        columns=(*FEATURE_KEYS.columns, *columns, *FEATURE_EXTRAS),
    )


SCORES = Table(
    name="scores",
    doc="A model's answer for each row: scores/<split>.parquet, sorted by row; scores/scores.json holds {'model': name}.",
    key=("row",),
    columns=(
        _need("row", "int64", "Impression (or candidate) number.", low=0),
        _need("request", "int64", "Request number.", low=0),
        _need("score", "float32", "Probability of a click as seen at the top position.", low=0, high=1),
    ),
)

TRUTH = Table(
    name="truth",
    doc="What only a simulator knows of each impression: truth/part-*.parquet.",
    key=("request_id", "job_id"),
    columns=(
        _need("request_id", "string", "The source's id."),
        _need("job_id", "string", "The source's id."),
        _need("relevance", "float32", "Probability of a click if examined: the best possible ranking score.", low=0, high=1),
        _need("click_probability", "float32", "Probability of the click as shown: examination times relevance.", low=0, high=1),
    ),
)

RECOMMENDATIONS = Table(
    name="recommendations",
    doc="The top jobs of each search, best first.",
    key=("request", "rank"),
    columns=(
        _need("request", "int64", "Request number.", low=0),
        _need("request_id", "string", "The source's id."),
        _need("user_id", "string", "Who searched."),
        _need("query", "string", "What was typed."),
        _c("request_city", "string", "City searched in."),
        _c("request_region", "string", "State or province searched in."),
        _need("ts", "timestamp", "Time of the search."),
        _need("rank", "int16", "1 is the best.", low=1),
        _need("job_id", "string", "The source's id."),
        _need("title", "string", "Title as advertised."),
        _need("company", "string", "Employer."),
        _c("city", "string", "City of the job."),
        _c("region", "string", "State or province of the job."),
        _need("score", "float32", "Probability of a click.", low=0, high=1),
    ),
)

# -------------------------------------------------------------------------------------------- what a server showed (serving)

EXPOSURE = (
    _need("model_rank", "int16", "Rank by the model, 1 is the best; `position` differs where the list was shuffled.", low=1),
    _need("score", "float32", "Probability of a click at the top position.", low=0, high=1),
    _need(
        "propensity",
        "float32",
        "Probability with which it came to its position; 1 where nothing was shuffled.",
        low=0,
        high=1,
    ),
    _need("shuffled", "bool", "The first positions of this list were shuffled."),
    _need("experiment", "string", "Experiment; empty where none runs."),
    _need("salt", "string", "What decided the arm."),
    _need("unit", "string", "Whom the arm was given to."),
    _need("arm", "string", "The unit's arm; empty where it has none."),
    _need("why", "string", "`arm`, or why there is none (`assignment.Assignment`)."),
    _c("interleaving", "string", "Salt of the draft that made the list of two bundles' jobs; empty = one bundle's list."),
    _c("team", "string", "Whose pick it was: a (`main`) or b; empty where both or none drafted it."),
    _c("failed", "string", "The one of a and b that failed: the list is the other's alone."),
    _c("other_bundle", "string", "Hash of the bundle b of an interleaved list."),
    _need("bundle_name", "string", "Name of the bundle that put it there."),
    _need("bundle", "string", "Its hash."),
    _need("model", "string", "Hash of the model."),
    _need("encoder", "string", "Hash of the encoder."),
    _need("catalogue", "string", "Hash of the catalogue."),
    _need("state", "string", "Time of the last event counted, ISO 8601."),
    _c("features", "list<float32>", "Features as they were read, in the order of the file's `features`; NaN = missing."),
)
"""By whom and how a job was put where it was shown: what an analysis of an experiment and off-policy estimates read."""

SERVED = Table(
    name="served",
    doc="One row per job of an answer, as the server writes it.",
    key=("request_id", "job_id"),
    columns=(*(c for c in RAW_IMPRESSIONS.columns if c.name not in ("clicked", "clicked_at")), *EXPOSURE),
)

SHOWN = Table(
    name="shown",
    doc="The raw impressions of what was served, with its clicks: ingest reads it as it is.",
    key=("request_id", "job_id"),
    columns=(*RAW_IMPRESSIONS.columns, *(Column(name=c.name, type=c.type, doc=c.doc) for c in EXPOSURE)),
)
