"""Mounting families: the Tornado application of a program."""

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tornado import web

from protocol.api.base import Handler
from protocol.api.callers import HARMLESS
from protocol.api.people_port import PeoplePort
from protocol.api.route import Context, Route
from protocol.errors import NotFound
from protocol.ports.service import Role
from protocol.trust.accounts import without_tokens
from protocol.trust.audit import Deed

log = logging.getLogger(__name__)

Observe = Callable[[str, str, int, float], None]
"""Told of each answered request: route, method, status, seconds. The port is `extras["http"]`."""

_PEOPLE = (Role.VIEWER, Role.USER, Role.OPERATOR, Role.ADMIN)
_GROUP = re.compile(r"\([^()]*\)")


class Unknown(Handler):
    """What no route matches."""

    def prepare(self) -> None:
        """Answers every method alike."""
        raise NotFound("there is nothing at this path", field="path")


def application(context: Context, routes: tuple[Route, ...], **settings: Any) -> web.Application:
    """The Tornado application of a program. Raises ValueError where two routes claim one path."""
    paths = [route.path for route in routes]
    clashes = {path for path in paths if paths.count(path) > 1}
    if clashes:
        raise ValueError(f"two families claim the same path: {', '.join(sorted(clashes))}")
    unknown = Route("/.*", Unknown, {})
    return web.Application(
        [
            (route.path + "$", route.handler, {"context": context, "route": route})
            for route in (*routes, unknown)
        ],
        log_function=partial(_log_request, context.extras),
        routes=routes,
        **settings,
    )


def _log_request(extras: Mapping[str, Any], handler: web.RequestHandler) -> None:
    observe: Observe | None = extras.get("http")
    people: PeoplePort | None = extras.get("people")
    status, seconds = handler.get_status(), handler.request.request_time()
    summary = without_tokens(handler._request_summary())
    log.debug("%d %s (%.1f ms)", status, summary, 1000 * seconds)
    if observe is not None:
        observe(_pattern(handler), handler.request.method or "", status, seconds)
    if people is not None and isinstance(handler, Handler):
        _note(people, handler, status)


def _note(people: PeoplePort, handler: Handler, status: int) -> None:
    """Write down what changes something, and what was refused. What programs of the pool do is
    written down where somebody asked for it; nobody changes anything.
    """
    caller, request = handler.caller, handler.request
    deed = Deed(
        at=people.audit.clock(),
        who=caller.by or caller.owner or caller.program,
        token=caller.token,
        address=people.callers.address_of(request)[:64],
        what=without_tokens(f"{request.method} {request.path}"),
        status=status,
        owner=caller.owner if caller.by else "",
    )
    noted = caller.role in _PEOPLE or (handler.NOTED and status < 400)
    if (noted and request.method not in HARMLESS) or deed.refused:
        people.audit.note(deed)


def _pattern(handler: web.RequestHandler) -> str:
    """The route's path with a star for each part that varies: what clients make up is all alike."""
    if isinstance(handler, Handler) and not isinstance(handler, Unknown):
        return _GROUP.sub("*", handler.route.path)
    return "other"
