"""Settings of the programs: one frozen value each, from defaults, a TOML file, the environment and
flags, later ones winning.

A setting is a field of the program's settings class; its comment there says the unit. In a file it
stands in the program's table (`[node]`, `[scheduler]`), in the environment as `IMAGEPOOL_` and its
name in capitals, lists with commas. What an API family goes by is a table in that table, a JSON
object in the environment.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_origin

import msgspec
from msgspec import Meta

from protocol import wire
from protocol.api.route import ApiSettings
from protocol.api.traffic_ops.settings import TrafficOpsSettings
from protocol.errors import Invalid
from protocol.model.networks import reach
from protocol.model.urls import check_patterns

PREFIX = "IMAGEPOOL_"
ALIASES = {"base_image": "BASE_IMAGE"}
"""Documented names from before there was a prefix."""

Anonymous = Literal["none", "viewer", "user"]
Transfers = Literal["tls", "plain"]
Unproven = Literal["none", "loopback", "anywhere"]

T = TypeVar("T", bound="ProgramSettings")


class ProgramSettings(ApiSettings, frozen=True, forbid_unknown_fields=True):
    """What node and scheduler have in common. What an API family goes by is a table of its own."""

    listen: str = "127.0.0.1:8080"  # HOST:PORT to serve on; port 0 picks one
    pool_listen: str = ""  # HOST:PORT for members of the pool, by TLS; empty: one port higher
    transfers: Transfers = "tls"  # how artifacts go in a pool: tls; plain: others can read them
    renew_every: Annotated[float, Meta(gt=0)] = 3600.0  # seconds between renewals of certificates
    anonymous: Anonymous = "none"  # what somebody without a token may be: none, viewer, user
    unproven: Unproven = "loopback"  # whence programs need no proof: none, loopback, anywhere
    failure_limit: Annotated[int, Meta(ge=1)] = 10  # wrong tokens and passwords, by an address
    failure_window: Annotated[float, Meta(gt=0)] = 60.0  # seconds in which that many are forgotten
    audit_keep: Annotated[float, Meta(gt=0)] = 365 * 86400.0  # seconds it is known who did what
    owner_waiting: Annotated[int, Meta(ge=0)] = 0  # builds of one owner that may wait; 0: all
    owner_running: Annotated[int, Meta(ge=0)] = 0  # builds of one owner at the same time; 0: all
    owner_size: Annotated[int, Meta(ge=0)] = 0  # bytes of one owner's artifacts; 0: no limit
    data: str = ""  # folder of its own; empty: one below /var/lib/imagepool, or the user's own
    name: str = ""  # how people call it; empty: the machine's host name
    pool: str = "default"  # programs of other pools are passed over
    mdns: bool = True  # find others, and be found, by mDNS
    mdns_interfaces: tuple[str, ...] = ()  # addresses to speak mDNS on; empty: those of `listen`
    log_level: str = "info"  # debug, info, warning, error
    log_format: str = "text"  # text, or json: one object for each line
    notice_pause: Annotated[float, Meta(gt=0)] = (
        1.0  # seconds to the second try; doubling, 1 h most
    )
    notice_tries: Annotated[int, Meta(ge=1)] = 20  # in a row, until a notice is given up
    notice_timeout: Annotated[float, Meta(gt=0)] = 10.0  # seconds that sending one may take
    notice_limit: Annotated[int, Meta(ge=1)] = 64  # notices that are sent at the same time
    erase_every: Annotated[float, Meta(gt=0)] = 60.0  # seconds until no file has what was deleted
    cancel_every: Annotated[float, Meta(gt=0)] = 10.0  # seconds between looks at a cancel_url
    notice_networks: tuple[str, ...] = ("public", "private")  # words and networks: whom to notify
    traffic_ops: TrafficOpsSettings = TrafficOpsSettings()


def load(
    kind: type[T],
    table: str,
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> T:
    """The settings of a program. Flags that are None were not given. Raises Invalid, naming the
    setting.
    """
    sources: tuple[tuple[str, Mapping[str, Any]], ...] = (
        (f"{file}: [{table}] ", _from_file(file, table) if file else {}),
        (PREFIX, _from_environment(kind, os.environ if environment is None else environment)),
        ("--", {name: value for name, value in (flags or {}).items() if value is not None}),
    )
    values = {name: value for _, given in sources for name, value in given.items()}
    try:
        settings = wire.convert(values, kind)
        host_and_port(settings.listen)
        _check_places(settings)
    except Invalid as error:
        raise _named(error, sources) from error
    return settings


def _check_places(settings: "ProgramSettings") -> None:
    """Raises Invalid for a network or an origin's pattern that makes no sense."""
    for name in settings.__struct_fields__:
        if name.endswith("_networks"):
            reach(getattr(settings, name), name)
    check_patterns(settings.redirects, "redirects")


def _named(error: Invalid, sources: Sequence[tuple[str, Mapping[str, Any]]]) -> Invalid:
    """The error, with where the setting was given last."""
    setting = re.split(r"[.\[]", error.field)[0]
    place = next((place for place, given in reversed(sources) if setting in given), "")
    written = {PREFIX: setting.upper(), "--": setting.replace("_", "-")}.get(place, setting)
    detail = error.detail
    if detail.startswith(setting):
        detail = place + written + detail.removeprefix(setting)
    return Invalid(detail, field=error.field, expected=error.expected)


def host_and_port(listen: str, field: str = "listen") -> tuple[str, int]:
    """`HOST:PORT` or `[IPV6]:PORT` taken apart. Raises Invalid."""
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise Invalid(f"{field} is {listen!r}", field=field, expected="HOST:PORT")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a program that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def data_folder(settings: ProgramSettings, program: str) -> Path:
    """Where the program keeps what must outlive it."""
    if settings.data:
        return Path(settings.data)
    if os.geteuid() == 0:
        return Path("/var/lib/imagepool") / program
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "imagepool" / program


def _from_file(file: Path, table: str) -> dict[str, Any]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(
            f"{file}: {error.strerror}", field="config", expected="a readable file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{file}: {error}", field="config", expected="a TOML file") from error
    unknown = set(document) - {"node", "scheduler"}
    if unknown:
        raise Invalid(
            f"{file}: unknown table {sorted(unknown)[0]!r}",
            field=sorted(unknown)[0],
            expected="[node] or [scheduler]",
        )
    settings = document.get(table, {})
    if not isinstance(settings, dict):
        raise Invalid(f"{file}: {table} is no table", field=table, expected=f"[{table}]")
    return settings


def _from_environment(kind: type[T], environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        names = [ALIASES.get(field.name, ""), PREFIX + field.name.upper()]
        text = next((environment[name] for name in reversed(names) if name in environment), None)
        if text is not None:
            values[field.name] = _parsed(field.name, field.type, text)
    return values


def _parsed(name: str, kind: Any, text: str) -> Any:
    """A setting's value out of a variable's text."""
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            msgspec.json.decode(text, type=kind)
            return msgspec.json.decode(text)
        return msgspec.convert(text, kind, strict=False)
    except msgspec.DecodeError as error:
        expected = str(error).partition(", got ")[0].removeprefix("Expected ")
        raise Invalid(
            f"{PREFIX}{name.upper()} is {text!r}", field=name, expected=expected
        ) from error
