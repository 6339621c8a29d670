"""Mounting families: the Tornado application of a program."""

import logging
from typing import Any

from tornado import web

from protocol.api.base import Handler
from protocol.api.route import Context, Route
from protocol.errors import NotFound

log = logging.getLogger(__name__)


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
        log_function=_log_request,
        **settings,
    )


def _log_request(handler: web.RequestHandler) -> None:
    status = handler.get_status()
    milliseconds = 1000 * handler.request.request_time()
    log.debug("%d %s (%.1f ms)", status, handler._request_summary(), milliseconds)
