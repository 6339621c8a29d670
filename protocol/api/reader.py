"""A page that shows the document of the API to people. It loads nothing from outside."""

from importlib.resources import files
from typing import ClassVar

from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.route import Route

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: nothing from elsewhere, nothing inline."""
_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}


class Reader(Handler):
    """The page, and what it is made of."""

    PRODUCES: ClassVar[tuple[str, ...]] = ()

    def setup(self, name: str) -> None:  # type: ignore[override]
        """`name`: of the file beside this module."""
        self._name = name

    def get(self) -> None:
        """The file."""
        data = files(__package__).joinpath(self._name).read_bytes()
        self.set_header("Content-Type", _MEDIA_TYPES[self._name.rpartition(".")[2]])
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-cache")
        self.finish(data)


_SEE = {"GET": Permission.STATUS}

ROUTES = (
    Route("/api/docs", Reader, _SEE, {"name": "reader.html"}),
    Route("/api/docs/reader.css", Reader, _SEE, {"name": "reader.css"}),
    Route("/api/docs/reader.js", Reader, _SEE, {"name": "reader.js"}),
)
