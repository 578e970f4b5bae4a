"""The application: the doors, the guard before them, and errors that all read alike."""

from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from tritower import __version__
from tritower.errors import TritowerError
from tritower.serving import doors, tensors, wire
from tritower.serving.config import ServeConfig
from tritower.serving.guard import Guard, Tokens, check_open
from tritower.serving.refusal import Refusal, body, refusal, unexpected
from tritower.serving.service import Service

Mount = Callable[[FastAPI, Service], None]
"""Adds routes of another part of the server, such as the page."""
_ABSENT_TS = {"now": "now", "last_event": "just after the last event that the server knows"}
_SAID = {
    404: ("there is no such path", "The paths are described in /openapi.json."),
    405: ("the path has no such method", "The paths are described in /openapi.json."),
}


def create_app(service: Service, *, mounts: Iterable[Mount] = (), tokens: Tokens | None = None) -> ASGIApp:
    """The application that uvicorn runs.

    Args:
        service: the model behind the doors, and the server's limits.
        mounts: more routes; they stand behind the same guard.
        tokens: the good ones; read from where the config says when None.

    Raises:
        ConfigError: anybody on the network could ask, or the tokens cannot be read.
    """
    tokens = tokens or Tokens(service.config)
    check_open(service.config, tokens)
    app = FastAPI(
        title="tritower",
        version=__version__,
        summary="A search in, ranked jobs out",
        docs_url=None,  # both pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.include_router(doors.routes(service))
    for mount in mounts:
        mount(app, service)
    _errors(app)
    _described(app, service.config)
    return Guard(app, service, tokens)


def _errors(app: FastAPI) -> None:
    def told(request: Request, error: Refusal) -> Response:
        content = body(error, str(request.state.request_id))
        return Response(content, error.status, error.headers, media_type="application/json")

    @app.exception_handler(TritowerError)
    async def ours(request: Request, error: TritowerError) -> Response:
        return told(request, refusal(error))

    @app.exception_handler(RequestValidationError)
    async def fields(request: Request, error: RequestValidationError) -> Response:
        return told(request, wire.invalid(list(error.errors())))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        allowed = _allowed(error)
        if allowed and request.method == "OPTIONS":
            return Response(status_code=204, headers=allowed)
        what, remedy = _SAID.get(error.status_code, (str(error.detail), "The paths are described in /openapi.json."))
        where = f"{request.method} {request.url.path}"
        headers = dict(error.headers or {}) | allowed
        return told(request, Refusal(error.status_code, what, where=where, remedy=remedy, headers=headers))

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return told(request, unexpected())


def _allowed(error: HTTPException) -> dict[str, str]:
    """The header of a 405: what the route has, and what the guard makes of it. No page of another origin is let in (CORS)."""
    if error.status_code != 405:
        return {}
    methods = {one.strip() for one in (error.headers or {}).get("Allow", "").split(",")}
    return {"Allow": ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))}


def _described(app: FastAPI, config: ServeConfig) -> None:
    """Put into the OpenAPI document what the code of a route cannot say: the body of V2, and the server's limits."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            schemas = document["components"]["schemas"]
            for kind in (wire.Search, doors.Instances, tensors.InferRequest):
                schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas |= schema.pop("$defs", {}) | {kind.__name__: schema}
            search = schemas["Search"]["properties"]
            search["query"]["maxLength"] = config.max_query_chars
            search["k"]["maximum"] = config.max_k
            search["candidates"]["anyOf"][0]["maxItems"] = config.max_candidates
            search["ts"]["description"] = f"microseconds since 1970, UTC; absent = {_ABSENT_TS[config.as_of]}"
            answer, job = schemas["Answer"]["properties"], schemas["RankedJob"]["properties"]
            answer["warnings"]["description"] = "what to know before believing it, a sentence each"
            answer["features"]["description"] = "names of the features; only where they are asked for"
            number = {"anyOf": [{"type": "number"}, {"type": "null"}]}
            job["features"] = {"anyOf": [{"type": "array", "items": number}, {"type": "null"}]}
            job["features"]["description"] = "in the order of the answer's; null = missing; only where they are asked for"
            job["reasons"]["description"] = "only where they are asked for (explain)"
            schemas["Instances"]["properties"]["instances"]["maxItems"] = config.max_searches
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
