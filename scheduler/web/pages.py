"""The roster as a page for people.

The handlers take the roster from the port `extras["roster"]` and the builds from the build service;
what the page says is decided in `view`, how it looks in the templates and in `page.css`. Style
sheet and script are named by their digest: browsers keep them for as long as they are current.
"""

import functools
import hashlib
import time
from importlib.resources import files
from urllib.parse import urlsplit

from msgspec import Struct
from tornado.template import BaseLoader, Template

from protocol import wire
from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.negotiation import preferred
from protocol.api.route import Route
from protocol.errors import NotFound, Unavailable
from protocol.model.build import Build
from protocol.model.messages import BuildQuery
from scheduler.roster.nodes_api import RosterHandler
from scheduler.web import words
from scheduler.web.view import PageView, page_view

HTML = "text/html"
BUILDS = BuildQuery(limit=50)
"""The builds that the page shows."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy: nothing from elsewhere, nothing inline.

Were a hostile name not escaped, it would still do nothing.
"""

_MEDIA_TYPES = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "mark.svg": "image/svg+xml",
}
_FOREVER = "public, max-age=31536000, immutable"


# Rendering


class Asset(Struct, frozen=True):
    """A file that the page refers to."""

    data: bytes
    digest: str
    media_type: str


@functools.cache
def asset(name: str) -> Asset:
    """The style sheet, the script or the mark."""
    data = files(__package__).joinpath(name).read_bytes()
    return Asset(data, hashlib.sha256(data).hexdigest()[:16], _MEDIA_TYPES[name])


class _Templates(BaseLoader):
    """The templates beside this module, found from a checkout and from an installed wheel alike."""

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """Called by Tornado for an include: all templates lie in one folder."""
        return name

    def _create_template(self, name: str) -> Template:
        source = files(__package__).joinpath(name).read_text()
        return Template(source, name=name, loader=self)


_TEMPLATES = _Templates(autoescape="xhtml_escape")


def render(page: PageView) -> bytes:
    """The page as HTML."""
    return _TEMPLATES.load("page.html").generate(
        page=page,
        asset=lambda name: f"{page.base}/static/{asset(name).digest}/{name}",
        mark=asset("mark.svg").data.decode(),
        short_node=words.short_node,
    )


# Choosing what to answer


def prefers_html(accept: str) -> bool:
    """Whether a client that sends this Accept header would rather have a page than data.

    It says so by name: `*/*`, as curl has it, is a program's.
    """
    return preferred(accept, (wire.JSON, wire.MSGPACK, HTML)) == HTML


# Handlers


class Page(RosterHandler):
    """The roster for whoever asks: a page for browsers, data for programs."""

    async def get(self) -> None:
        """The nodes, and for people the newest builds beside them."""
        self.set_header("Vary", "Accept")
        if not prefers_html(self.request.headers.get("Accept", "")):
            self.reply(self.port.roster())
            return
        builds, trouble = await self._builds()
        view = page_view(
            self.port.roster(),
            builds,
            trouble=trouble,
            now=time.time(),
            origin=self._origin(),
            base=self._base(),
        )
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Referrer-Policy", "same-origin")
        self.finish(render(view))

    head = get

    async def _builds(self) -> tuple[tuple[Build, ...], str]:
        """The builds, or why there are none to show: then the nodes are wanted all the more."""
        try:
            return (await self.service.list(self.caller, BUILDS)).builds, ""
        except Unavailable as error:
            return (), error.detail

    def _origin(self) -> str:
        """What clients call this scheduler, for lines that are copied into a terminal."""
        url = self.url("")
        return url or f"{self.request.protocol}://{self.request.host}"

    def _base(self) -> str:
        """The path under which a proxy serves us; links begin with it."""
        return urlsplit(self.limits.public_url).path.rstrip("/")


class Static(Handler):
    """Style sheet, script and mark."""

    def get(self, digest: str, name: str) -> None:
        """The file. Browsers keep it for good under its own digest, not at all under another."""
        if name not in _MEDIA_TYPES:
            raise NotFound("there is no such file", field="path")
        found = asset(name)
        self.set_header("Content-Type", found.media_type)
        if digest == found.digest:
            self.set_header("Cache-Control", _FOREVER)
        self.finish(found.data)

    head = get


_SEE = {"GET": Permission.ROSTER, "HEAD": Permission.ROSTER}

ROUTES = (
    Route("/", Page, _SEE),
    Route("/nodes", Page, _SEE),
    Route(r"/static/([0-9a-f]{16})/([a-z]+\.[a-z]+)", Static, _SEE),
)
