"""Who asks, for handlers that are tried without a program."""

from tornado.httputil import HTTPServerRequest

from protocol.ports.service import LOCAL, Caller


class Locals:
    """Everybody who asks sits at this machine."""

    def caller_of(self, request: HTTPServerRequest) -> Caller:
        """See Callers."""
        return LOCAL
