"""Searches and answers as tensors of the Open Inference Protocol (V2): n searches, m candidates, k jobs.

In, all BYTES: `query`, `user_id`, `city`, `region`, `country` [n]; `candidates` [n, m], empty ones left out; or, in place of
all of them, `request` [n]: the JSON of `POST /rank`. Parameters of the request: `k`, `explain`, `features`.
Out: `job_id` BYTES [n, k] and `score` FP64 [n, k], filled up with "" and 0; `count` INT64 [n]; `answer` BYTES [n]: the JSON of
`POST /rank`. Inputs may be binary (Triton's extension: a length in 4 bytes, little-endian, before each value), outputs
are JSON.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tritower.serving import wire
from tritower.serving.messages import Answer
from tritower.serving.refusal import LONGEST_ID, Refusal, quoted

_COLUMNS = ("query", "user_id", "city", "region", "country")
_NAMES = ("request", *_COLUMNS, "candidates")
METADATA: dict[str, Any] = {
    "inputs": [
        *({"name": name, "datatype": "BYTES", "shape": [-1]} for name in ("request", *_COLUMNS)),
        {"name": "candidates", "datatype": "BYTES", "shape": [-1, -1]},
    ],
    "outputs": [
        {"name": "job_id", "datatype": "BYTES", "shape": [-1, -1]},
        {"name": "score", "datatype": "FP64", "shape": [-1, -1]},
        {"name": "count", "datatype": "INT64", "shape": [-1]},
        {"name": "answer", "datatype": "BYTES", "shape": [-1]},
    ],
}


class InputTensor(BaseModel):
    """One input; `data` is absent where it follows the JSON in binary."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: Literal["request", "query", "user_id", "city", "region", "country", "candidates"]
    shape: list[int] = Field(min_length=1, max_length=2)
    datatype: Literal["BYTES"]
    parameters: dict[str, bool | int | float | str] = {}
    data: list[str] | list[list[str]] | None = None


class Wanted(BaseModel):
    """An output that is asked for."""

    name: str
    parameters: dict[str, bool | int | float | str] = {}


class InferRequest(BaseModel):
    """A request of the protocol."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model_name: str | None = Field(None, description="KServe's client repeats it here")
    model_version: str | None = None
    id: str = Field("", max_length=LONGEST_ID, pattern=r"^[\w.:-]*$")
    parameters: dict[str, bool | int | float | str] = {}
    inputs: list[InputTensor] = Field(min_length=1, max_length=len(_NAMES))
    outputs: list[Wanted] = Field([], max_length=16)


class OutputTensor(BaseModel):
    """One output."""

    name: str
    shape: list[int]
    datatype: str
    data: list[str] | list[float] | list[int]


class InferResponse(BaseModel):
    """An answer of the protocol."""

    id: str | None = None
    model_name: str
    model_version: str
    outputs: list[OutputTensor]


def read(body: bytes, header_length: str) -> tuple[InferRequest, dict[str, list[str]]]:
    """The request, and the values of each input in one list.

    Args:
        body: JSON, and binary values after it.
        header_length: bytes of the JSON; empty = all.

    Raises:
        Refusal: it is not what the protocol says.
    """
    if header_length and not (header_length.isdecimal() and len(header_length) < 10):
        raise Refusal(400, "the length is no number", where="header Inference-Header-Content-Length", remedy="Give bytes.")
    end = int(header_length) if header_length else len(body)
    try:
        given = InferRequest.model_validate_json(body[:end])
    except ValidationError as error:
        raise wire.invalid(error.errors(include_url=False)) from None
    binary, found = memoryview(body)[end:], dict[str, list[str]]()
    for tensor in given.inputs:
        if tensor.name in found:
            raise Refusal(422, "this input is given twice", where=f"inputs.{tensor.name}", remedy="Give it once.")
        size = tensor.parameters.get("binary_data_size")
        if size is not None:
            if not isinstance(size, int) or not 0 <= size <= len(binary):
                remedy = "Let binary_data_size count the bytes of this input after the JSON."
                raise Refusal(422, f"{quoted(size)} bytes are not there", where=f"inputs.{tensor.name}", remedy=remedy)
            values, binary = _decoded(bytes(binary[:size]), tensor.name), binary[size:]
        else:
            values = [one for row in tensor.data or [] for one in ([row] if isinstance(row, str) else row)]
        _shaped(tensor, len(values))
        found[tensor.name] = values
    return given, found


def _shaped(tensor: InputTensor, count: int) -> None:
    wanted = 1
    for length in tensor.shape:
        wanted *= length
    if min(tensor.shape) < 0 or wanted != count or tensor.shape[0] < 1:
        remedy = "Let the shape have n, or n and m for candidates, and as many values."
        raise Refusal(422, f"{count:,} values do not fill {tensor.shape}", where=f"inputs.{tensor.name}", remedy=remedy)


def _decoded(content: bytes, name: str) -> list[str]:
    values, at = list[str](), 0
    try:
        while at < len(content):
            length = int.from_bytes(content[at : at + 4], "little")
            if at + 4 + length > len(content):
                raise ValueError(f"{length:,} bytes are announced, {max(0, len(content) - at - 4):,} are there")
            values.append(content[at + 4 : at + 4 + length].decode("utf-8"))
            at += 4 + length
    except ValueError as error:  # UnicodeDecodeError is one
        remedy = "Write each value as its length in 4 bytes, little-endian, and its UTF-8."
        raise Refusal(422, f"the binary values cannot be read: {error}", where=f"inputs.{name}", remedy=remedy) from None
    return values


def searches(given: InferRequest, inputs: dict[str, list[str]]) -> list[wire.Search]:
    """The searches that the inputs stand for.

    Raises:
        Refusal: the inputs do not go together, or a value does not fit.
    """
    counts = {tensor.name: tensor.shape[0] for tensor in given.inputs}
    if len(set(counts.values())) > 1 or ("request" in inputs and len(inputs) > 1):
        remedy = "Give `request` alone, or the other inputs, all for as many searches."
        raise Refusal(422, f"the inputs do not go together: {counts}", where="inputs", remedy=remedy)
    more = {name: value for name, value in given.parameters.items() if name in ("k", "explain", "features")}
    found = []
    for number in range(next(iter(counts.values()))):
        try:
            if "request" in inputs:
                found.append(wire.Search.model_validate_json(inputs["request"][number]))
                continue
            fields: dict[str, Any] = {
                name: inputs[name][number] for name in _COLUMNS if name in inputs and inputs[name][number]
            }
            if "candidates" in inputs:
                width = len(inputs["candidates"]) // counts["candidates"]
                row = inputs["candidates"][number * width : (number + 1) * width]
                fields["candidates"] = [one for one in row if one]
            found.append(wire.Search.model_validate(fields | more))
        except ValidationError as error:
            raise wire.invalid(error.errors(include_url=False), f"inputs.{number}.") from None
    return found


def response(given: InferRequest, answers: list[Answer], model: str) -> InferResponse:
    """The answers as tensors; those that were asked for, or all."""
    n, k = len(answers), max((len(answer.jobs) for answer in answers), default=0)
    ids = [answer.jobs[rank].job_id if rank < len(answer.jobs) else "" for answer in answers for rank in range(k)]
    scores = [answer.jobs[rank].score if rank < len(answer.jobs) else 0.0 for answer in answers for rank in range(k)]
    outputs = [
        OutputTensor(name="job_id", shape=[n, k], datatype="BYTES", data=ids),
        OutputTensor(name="score", shape=[n, k], datatype="FP64", data=scores),
        OutputTensor(name="count", shape=[n], datatype="INT64", data=[len(answer.jobs) for answer in answers]),
        OutputTensor(name="answer", shape=[n], datatype="BYTES", data=[wire.told(answer).decode() for answer in answers]),
    ]
    wanted = {one.name for one in given.outputs}
    unknown = wanted - {one.name for one in outputs}
    if unknown:
        known = ", ".join(one.name for one in outputs)
        raise Refusal(422, f"there is no output {quoted(min(unknown))}", where="outputs", remedy=f"There are {known}.")
    chosen = [one for one in outputs if not wanted or one.name in wanted]
    return InferResponse(id=given.id or None, model_name=model, model_version=answers[0].versions.bundle, outputs=chosen)
