"""The document of the API (OpenAPI 3.1), made of the routes that a program serves and of the types
that validate what they take.

A route that says nothing of itself is in it too, by what its handler's docstrings say.
"""

import re
from collections.abc import Iterable
from types import NoneType
from typing import Any, ClassVar, get_args

import msgspec

from protocol import VERSION, wire
from protocol.api.access import ALLOWED, Permission
from protocol.api.base import Handler
from protocol.api.operation import BOTH, Answer, Argument, Operation, answered
from protocol.api.route import Route
from protocol.model.messages import Problem
from protocol.ports.service import Role

PATH = "/api/v1/openapi.json"

Json = dict[str, Any]

_GROUP = re.compile(r"\(([^()]*)\)")
_TEMPLATE = "#/components/schemas/{name}"
_SCHEMES = {"token": {"type": "http", "scheme": "bearer", "description": "imagepool token create"}}
_BEARER: dict[str, list[str]] = {"token": []}
_ERRORS = {
    400: "the request is wrong: `field` names what, `expected` says what would be right",
    401: "nothing, or nothing valid, says who you are",
    403: "you may not do this, or the operator does not allow it",
    404: "there is no such thing",
    406: "you accept none of the media types that are served here",
    409: "this contradicts what is already there",
    412: "it is not as you say",
    413: "the request is too large",
    415: "the body's media type is not read here",
    416: "the range cannot be satisfied",
    429: "you failed too often to prove who you are; Retry-After says when to try again",
    502: "the node that has it does not answer",
    503: "there is no room now; Retry-After says when to try again",
}


def document(routes: Iterable[Route], title: str = "imagepool") -> Json:
    """The document of those of the routes that are under /api/v1/."""
    served = sorted((r for r in routes if r.path.startswith("/api/v1/")), key=lambda r: r.path)
    schemas = Schemas()
    paths: Json = {}
    for route in served:
        path, places = _path(route)
        methods = {
            method.lower(): _operation(route, method, places, schemas)
            for method in sorted(route.permissions)
        }
        paths[path] = {**({"parameters": places} if places else {}), **methods}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": VERSION,
            "description": "Builds of operating-system images on a pool of machines.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas.all(), "securitySchemes": _SCHEMES},
    }


class Schemas:
    """The types that a document names."""

    def __init__(self) -> None:
        self._kinds: list[Any] = []

    def of(self, kind: Any) -> Json:
        """The schema of a type; a struct's is named."""
        if kind not in self._kinds:
            self._kinds.append(kind)
        (schema,), _ = msgspec.json.schema_components((kind,), ref_template=_TEMPLATE)
        return _tidy(schema)

    def all(self) -> Json:
        """Each named one, in full."""
        _, found = msgspec.json.schema_components(self._kinds, ref_template=_TEMPLATE)
        return {name: _tidy(found[name]) for name in sorted(found)}


def _tidy(schema: Any) -> Any:
    """Docstrings in one line."""
    if isinstance(schema, dict):
        return {
            key: " ".join(value.split())
            if key == "description" and isinstance(value, str)
            else _tidy(value)
            for key, value in schema.items()
        }
    return [_tidy(value) for value in schema] if isinstance(schema, list) else schema


def _path(route: Route) -> tuple[str, list[Json]]:
    """`/nodes/(PATTERN)` -> `/nodes/{node}`, and the parameter."""
    pattern = route.path
    places: list[Json] = []

    def named(match: re.Match[str]) -> str:
        segment = pattern[: match.start()].rstrip("/").rpartition("/")[2]
        name = segment.removesuffix("s")
        schema = {"type": "string", "pattern": f"^{route.valid.get(name, match[1])}$"}
        places.append({"name": name, "in": "path", "required": True, "schema": schema})
        return f"{{{name}}}"

    return _GROUP.sub(named, pattern), places


def _operation(route: Route, method: str, places: list[Json], schemas: Schemas) -> Json:
    said = route.operations.get(method) or _undescribed(route, method)
    title, _, more = said.about.strip().partition("\n")
    errors = {*said.errors, *_implied(route, said, places)}
    described: Json = {
        "operationId": _name(route, method),
        "summary": title,
        "tags": [_tag(route)],
        "responses": {
            **{str(status): _answer(answer, schemas) for status, answer in said.answers.items()},
            **{str(status): _problem(status, schemas) for status in sorted(errors)},
        },
    }
    open_to_all = Role.NOBODY in ALLOWED[route.permissions[method]]
    described["security"] = [{}, _BEARER] if open_to_all else [_BEARER]
    if more.strip():
        described["description"] = " ".join(more.split())
    if said.arguments:
        described["parameters"] = [_argument(one, schemas) for one in said.arguments]
    if said.body is not None or said.body_media_types:
        described["requestBody"] = _body(said, schemas)
    return described


def _undescribed(route: Route, method: str) -> Operation:
    words = getattr(route.handler, method.lower()).__doc__ or route.handler.__doc__ or ""
    return Operation(words, {200: Answer("as the description says")})


def _implied(route: Route, said: Operation, places: list[Json]) -> set[int]:
    """Statuses that follow from what is taken and given."""
    found = {400, 401, 403, 429}
    if places:
        found.add(404)
    if issubclass(route.handler, Handler) and route.handler.PRODUCES:
        found.add(406)
    if said.body is not None or said.body_media_types:
        found |= {413, 415}
    return found


def _answer(answer: Answer, schemas: Schemas) -> Json:
    found: Json = {"description": answer.about}
    if answer.headers:
        found["headers"] = {
            name: {"description": about, "schema": {"type": "string"}}
            for name, about in answer.headers.items()
        }
    if answer.kind is not None:
        schema = schemas.of(answer.kind)
        found["content"] = {name: {"schema": schema} for name in answer.media_types}
    elif answer.media_types != BOTH:
        found["content"] = {name: {} for name in answer.media_types}
    return found


def _problem(status: int, schemas: Schemas) -> Json:
    return _answer(Answer(_ERRORS[status], Problem, (wire.PROBLEM, wire.MSGPACK)), schemas)


def _argument(argument: Argument, schemas: Schemas) -> Json:
    # An argument that is not given is not there; none is null.
    kinds = [kind for kind in get_args(argument.kind) if kind is not NoneType]
    optional = NoneType in get_args(argument.kind)
    schema = schemas.of(kinds[0] if optional else argument.kind)
    return {
        "name": argument.name,
        "in": argument.place,
        "description": argument.about,
        "schema": schema,
    }


def _body(said: Operation, schemas: Schemas) -> Json:
    content: Json = {name: {} for name in said.body_media_types}
    if said.body is not None:
        schema = schemas.of(said.body)
        content = {name: {"schema": schema} for name in said.body_media_types or BOTH}
    return {"required": not said.body_optional, "content": content}


def _tag(route: Route) -> str:
    """The noun that a route is about."""
    return route.path.removeprefix("/api/v1/").partition("/")[0].partition(".")[0]


def _name(route: Route, method: str) -> str:
    words = re.findall(r"[a-z]+", _path(route)[0].removeprefix("/api/v1/"))
    return "-".join([method.lower(), *words])


class Document(Handler):
    """The document of what this program serves."""

    PRODUCES: ClassVar[tuple[str, ...]] = (wire.JSON, wire.MSGPACK, "application/openapi+json")

    def get(self) -> None:
        """OpenAPI 3.1."""
        made: Json | None = self.settings.get("openapi")
        if made is None:
            made = self.settings["openapi"] = document(self.settings["routes"])
        self.reply(made)


ROUTES = (
    Route(
        PATH,
        Document,
        {"GET": Permission.STATUS},
        operations={
            "GET": Operation(
                "This document", answered(dict[str, Any], "OpenAPI 3.1, of this program")
            )
        },
    ),
)
