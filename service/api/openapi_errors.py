"""Describes errors in OpenAPI as the service sends them, in place of the framework's own error schemas."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api.principal import SECURITY_SCHEMES
from service.api.problems import MEDIA_TYPE
from service.api.schemas import Problem

_MEANINGS = {
    401: "The request has no key, or one that does not count.",
    403: "The scope is missing, the Host or the Origin is not one of the service's, or the file may not be "
    "played.",
    404: "It does not exist.",
    409: "The new snapshot or its bundle cannot be opened; the one before is still served.",
    410: "The video's file is missing; or, for a further page, the answer that it belongs to is not kept.",
    412: "The video has changed since the client read it.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    416: "The range is outside the file.",
    422: "The request is invalid.",
    429: "Too many requests came with this key, or from this address.",
    500: "The server failed.",
    507: "The disk has no room for it.",
    503: "No snapshot is served, too many searches are waiting, the search cannot be in time, or the server "
    "of the vectors or the object store does not answer.",
}
#: What may happen anywhere: who asks is refused, asks too often, or the server fails.
_EVERYWHERE = (401, 403, 429, 500)
_REF = "#/components/schemas/{model}"


def error_responses(
    *statuses: int, meanings: Mapping[int, str] = MappingProxyType({})
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these statuses, and with those of all routes.

    `meanings` are descriptions in place of the usual ones.
    """
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}
    said = {**_MEANINGS, **meanings}
    return {
        status: {"description": said[status], "content": content}
        for status in sorted({*_EVERYWHERE, *statuses})
    }


def describe_errors(app: FastAPI) -> None:
    """Make `app.openapi()` describe errors as the service sends them."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        license_info=app.license_info,
        routes=app.routes,
    )
    schemas: dict[str, Any] = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template=_REF)
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    document["components"]["securitySchemes"] = {name: dict(each) for name, each in SECURITY_SCHEMES.items()}
    for operations in document["paths"].values():
        for operation in operations.values():
            # The framework adds its own 422 to every route with a parameter. Keep those that routes declare.
            invalid = operation["responses"].get("422")
            if invalid is not None and MEDIA_TYPE not in invalid.get("content", {}):
                del operation["responses"]["422"]
    return document
