"""The routes: `POST /rank`, KServe's protocol V1, the Open Inference Protocol (V2), health and figures.

V1 (kserve.github.io/website, data plane, V1 protocol): each instance is a search, each prediction its answer.
V2 (github.com/kserve/open-inference-protocol): see `tensors.py`.
"""

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tritower import __version__
from tritower.serving import tensors, wire
from tritower.serving.messages import Answer
from tritower.serving.refusal import Refusal
from tritower.serving.service import Service

MODEL = "tritower"
T = TypeVar("T", bound=BaseModel)


class Refused(BaseModel):
    """Why a request was not answered."""

    error: str = Field(description="all in one line")
    what: str
    where: str
    remedy: str
    request_id: str


class Instances(BaseModel):
    """Several searches."""

    model_config = ConfigDict(extra="forbid", strict=True)
    instances: list[wire.Search] = Field(min_length=1)


class Predictions(BaseModel):
    """Their answers, in the same order."""

    predictions: list[Answer]


REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": Refused, "description": why}
    for status, why in {
        400: "The body is not JSON",
        401: "A token is needed",
        404: "There is no such model",
        408: "The body came too slowly",
        413: "The body is too long",
        415: "The body is not said to be JSON",
        422: "A field does not fit",
        429: "Too many requests of one client",
        503: "Too many requests wait, or the server ends",
    }.items()
}


def routes(service: Service) -> APIRouter:
    """All doors on one model."""
    router = APIRouter()
    _typed(router, service)
    _v1(router, service)
    _v2(router, service)

    @router.get("/metrics", tags=["operation"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _request_id(request: Request) -> str:
    return str(request.state.request_id)


def _takes(kind: type[BaseModel]) -> dict[str, Any]:
    """For the OpenAPI document: what a route reads by itself. pydantic reads JSON faster than the framework, and strictly."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def _read(kind: type[T], request: Request) -> T:
    # A page of another origin can have a browser send anything but JSON without asking first.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        remedy = "Send Content-Type: application/json."
        raise Refusal(415, "the body is not said to be JSON", where="header Content-Type", remedy=remedy)
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        raise wire.invalid(error.errors(include_url=False)) from None


RequestId = Annotated[str, Depends(_request_id)]


def _state(name: str, service: Service, response: Response) -> dict[str, Any]:
    """Whether the model takes requests, with the status that says so."""
    _known(name)
    response.status_code = 200 if service.ready else 503
    return {"name": MODEL, "ready": service.ready}


def _typed(router: APIRouter, service: Service) -> None:
    @router.post("/rank", tags=["rank"], response_model=Answer, responses=REFUSED, openapi_extra=_takes(wire.Search))
    async def rank(request: Request, request_id: RequestId) -> Response:
        """Rank the given jobs for a search, or retrieve them first."""
        search = await _read(wire.Search, request)
        answer = await service.answer(search.question(service.config, request_id))
        return _json(wire.told(answer))


def _v1(router: APIRouter, service: Service) -> None:
    @router.get("/v1/models", tags=["V1"])
    async def models() -> dict[str, list[str]]:
        """The models of this server."""
        return {"models": [MODEL]}

    @router.post(
        "/v1/models/{name}:predict",
        tags=["V1"],
        response_model=Predictions,
        responses=REFUSED,
        openapi_extra=_takes(Instances),
    )
    async def predict(name: str, request: Request, request_id: RequestId) -> Response:
        """Several searches at once, all answered by one version."""
        _known(name)
        given = await _read(Instances, request)
        answers = await _answered(service, given.instances, request_id, "instances")
        return _json(b'{"predictions":[%s]}' % b",".join(map(wire.told, answers)))

    @router.get("/v1/models/{name}", tags=["V1"], responses={404: REFUSED[404], 503: REFUSED[503]})
    async def model(name: str, response: Response) -> dict[str, Any]:
        """Whether the model takes requests."""
        return _state(name, service, response)


def _v2(router: APIRouter, service: Service) -> None:
    @router.get("/v2", tags=["V2"])
    async def server() -> dict[str, Any]:
        """What this server is."""
        return {"name": MODEL, "version": __version__, "extensions": ["binary_tensor_data"]}

    @router.get("/v2/health/live", tags=["V2"])
    async def live() -> dict[str, bool]:
        """Whether the process runs."""
        return {"live": True}

    @router.get("/v2/health/ready", tags=["V2"], responses={503: {"description": "The server ends"}})
    async def ready(response: Response) -> dict[str, Any]:
        """Whether a whole and warmed bundle takes requests; `trouble` says why a newer one is not in use."""
        response.status_code = 200 if service.ready else 503
        return {"ready": service.ready, "trouble": service.trouble}

    @router.get("/v2/models/{name}", tags=["V2"], responses={404: REFUSED[404]})
    async def metadata(name: str) -> dict[str, Any]:
        """Inputs, outputs, and the version in use."""
        _known(name)
        versions = service.holder.get().versions
        return {"name": MODEL, "versions": [versions.bundle], "platform": MODEL, **tensors.METADATA}

    @router.get("/v2/models/{name}/ready", tags=["V2"], responses={404: REFUSED[404], 503: REFUSED[503]})
    async def model_ready(name: str, response: Response) -> dict[str, Any]:
        """Whether the model takes requests."""
        return _state(name, service, response)

    @router.post(
        "/v2/models/{name}/infer",
        tags=["V2"],
        response_model=tensors.InferResponse,
        responses=REFUSED,
        openapi_extra=_takes(tensors.InferRequest),
    )
    async def infer(name: str, request: Request, request_id: RequestId) -> Response:
        """Searches as tensors; `tensors.py` has their names."""
        _known(name)
        header = request.headers.get("inference-header-content-length", "")
        given, inputs = tensors.read(await request.body(), header)
        answers = await _answered(service, tensors.searches(given, inputs), given.id or request_id, "inputs")
        return _json(tensors.response(given, answers, MODEL).model_dump_json(exclude_none=True).encode())


async def _answered(service: Service, searches: list[wire.Search], request_id: str, where: str) -> list[Answer]:
    most = service.config.max_searches
    if len(searches) > most:
        raise Refusal(422, f"{len(searches):,} searches are too many", where=where, remedy=f"Give {most} at most.")
    several = len(searches) > 1
    return await service.answers(
        [
            search.question(service.config, f"{request_id}-{number}" if several else request_id, f"{where}.{number}.")
            for number, search in enumerate(searches)
        ]
    )


def _known(name: str) -> None:
    if name != MODEL:
        raise Refusal(404, "there is no such model", where=name, remedy=f"This server has {MODEL!r}.")
