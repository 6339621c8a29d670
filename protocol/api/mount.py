"""Mounting families: the Tornado application of a program."""

import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from tornado import web

from protocol.api.base import Handler
from protocol.api.route import Context, Route
from protocol.errors import NotFound

log = logging.getLogger(__name__)

Observe = Callable[[str, str, int, float], None]
"""Told of each answered request: route, method, status, seconds. The port is `extras["http"]`."""

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
        log_function=partial(_log_request, context.extras.get("http")),
        routes=routes,
        **settings,
    )


def _log_request(observe: Observe | None, handler: web.RequestHandler) -> None:
    status, seconds = handler.get_status(), handler.request.request_time()
    log.debug("%d %s (%.1f ms)", status, handler._request_summary(), 1000 * seconds)
    if observe is not None:
        observe(_pattern(handler), handler.request.method or "", status, seconds)


def _pattern(handler: web.RequestHandler) -> str:
    """The route's path with a star for each part that varies: what clients make up is all alike."""
    if isinstance(handler, Handler) and not isinstance(handler, Unknown):
        return _GROUP.sub("*", handler.route.path)
    return "other"
