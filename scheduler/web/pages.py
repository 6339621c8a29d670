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
from protocol.api.callers import csrf_token
from protocol.api.negotiation import preferred
from protocol.api.people_port import PeoplePort
from protocol.api.route import Route
from protocol.errors import NotFound, PoolError, Unavailable
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
    "people.js": "text/javascript; charset=utf-8",
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


class Visitor(Struct, frozen=True):
    """Who looks at the page."""

    name: str = ""  # empty: somebody of this machine, or anonymous
    csrf: str = ""  # what says that the page asks; empty: they did not log in
    invited: bool = False  # they may log in


_SOMEBODY = Visitor()


def render(page: PageView, visitor: Visitor = _SOMEBODY) -> bytes:
    """The page as HTML."""
    return _TEMPLATES.load("page.html").generate(
        page=page,
        visitor=visitor,
        asset=lambda name: f"{page.base}/static/{asset(name).digest}/{name}",
        mark=asset("mark.svg").data.decode(),
        short_node=words.short_node,
    )


def render_log_in(base: str) -> bytes:
    """The form of who is not known. `base`: the path under which a proxy serves us."""
    return _TEMPLATES.load("login.html").generate(
        base=base,
        asset=lambda name: f"{base}/static/{asset(name).digest}/{name}",
        mark=asset("mark.svg").data.decode(),
    )


# Choosing what to answer


def prefers_html(accept: str) -> bool:
    """Whether a client that sends this Accept header would rather have a page than data.

    It says so by name: `*/*`, as curl has it, is a program's.
    """
    return preferred(accept, (wire.JSON, wire.MSGPACK, HTML)) == HTML


# Handlers


class ForPeople(RosterHandler):
    """What answers with HTML."""

    def _html(self, page: bytes) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Referrer-Policy", "same-origin")
        self.finish(page)

    def _base(self) -> str:
        """The path under which a proxy serves us; links begin with it."""
        return urlsplit(self.limits.public_url).path.rstrip("/")


class Page(ForPeople):
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
        self._html(render(view, self._visitor()))

    head = get

    def render_error(self, status: int, error: PoolError) -> None:
        """For a browser whose person is not known, the form."""
        if status == 401 and prefers_html(self.request.headers.get("Accept", "")):
            self.clear_header("WWW-Authenticate")
            self._html(render_log_in(self._base()))
        else:
            super().render_error(status, error)

    def _visitor(self) -> Visitor:
        """Who looks."""
        people: PeoplePort | None = self.context.extras.get("people")
        session = people.callers.session_of(self.request) if people else None
        if session is not None and session[1].id == self.caller.token:
            return Visitor(session[1].owner, csrf_token(session[0]))
        return Visitor(invited=people is not None and bool(people.accounts.users()))

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


class LogIn(ForPeople):
    """The form, for who may see the page without a name and has one."""

    def get(self) -> None:
        """Name and password."""
        self._html(render_log_in(self._base()))

    head = get


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
_OPEN = {"GET": Permission.STATUS, "HEAD": Permission.STATUS}

ROUTES = (
    Route("/", Page, _SEE),
    Route("/nodes", Page, _SEE),
    Route("/login", LogIn, _OPEN),
    Route(r"/static/([0-9a-f]{16})/([a-z]+\.[a-z]+)", Static, _OPEN),
)
