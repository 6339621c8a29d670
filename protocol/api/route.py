"""What a program mounts: routes with permissions, the context that handlers are given, and
limits.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from tornado.web import RequestHandler

from protocol.api.access import Permission
from protocol.api.callers import Callers
from protocol.api.operation import Operation
from protocol.ports.service import BuildService

ID = r"([0-9a-z]{1,64})"
"""A build's id in a route."""


class ApiSettings(msgspec.Struct, frozen=True):
    """What the API goes by; part of each program's settings."""

    body_limit: int = 16 << 20  # bytes of a request's body
    body_pause: Annotated[float, Meta(gt=0)] = 60.0  # seconds that a body may stand still
    header_limit: Annotated[int, Meta(ge=1024)] = 32 << 10  # bytes of a request's line and headers
    header_count: Annotated[int, Meta(ge=1)] = 128  # headers of a request
    header_time: Annotated[float, Meta(gt=0)] = 10.0  # seconds in which a header must be whole
    url_limit: Annotated[int, Meta(ge=256)] = 24 << 10  # bytes of a request's URL
    nesting_limit: Annotated[int, Meta(ge=16, le=500)] = 64  # lists and maps in each other
    value_limit: Annotated[int, Meta(ge=1000)] = 200_000  # values and names in a body
    command_limit: Annotated[int, Meta(ge=1, le=256)] = 256  # commands of a build
    label_limit: Annotated[int, Meta(ge=0, le=64)] = 64  # labels of a build
    connections: Annotated[int, Meta(ge=16)] = 8192  # connections at the same time
    connections_per_address: Annotated[int, Meta(ge=1)] = 2048  # of these, by one address
    wait_limit: float = 60.0  # seconds that a request may be held
    output_limit: int = 1 << 20  # bytes of a command's output shown in a status
    relative_urls: bool = False  # status and download URLs without scheme and host
    public_url: str = ""  # what clients call this program, where a proxy changes it
    images: tuple[str, ...] = ("*",)  # patterns of image names that builds may name
    upload_limit: int = 64 << 30  # bytes of an upload, and of an artifact that others build on
    upload_keep: float = 86400.0  # seconds that uploads are kept after their last use
    redirects: tuple[str, ...] = ("*",)  # patterns of origins that /create may redirect to


class Context(msgspec.Struct, frozen=True):
    """What every handler is given."""

    service: BuildService
    settings: ApiSettings
    callers: Callers
    extras: Mapping[str, Any] = {}  # ports that a family needs beyond the service, by name


class Route(msgspec.Struct, frozen=True):
    """A path, who serves it, and the permission that each method needs."""

    path: str  # a regular expression, matched whole
    handler: type[RequestHandler]
    permissions: Mapping[str, Permission]  # method -> permission
    options: Mapping[str, Any] = {}  # passed to the handler's `setup`
    operations: Mapping[str, Operation] = {}  # method -> what it takes and gives
    # Name of a part of the path -> pattern of what is taken there, where the path matches more so
    # that what is not is refused with the reason.
    valid: Mapping[str, str] = {}
