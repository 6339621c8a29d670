"""Who may do what: one table. Every route names the permission that it needs; a test refuses a
route without one.

Until clients prove who they are, the table allows everything to everybody: programs serve the
loopback address, and other addresses only where the operator's settings name them.
"""

import enum
import re

from tornado.httputil import HTTPServerRequest

from protocol.errors import Denied, Invalid
from protocol.ports.service import Caller, Role


class Permission(enum.Enum):
    """What a route lets its caller do."""

    STATUS = "status"  # see whether this program is ready
    SOURCE = "source"  # get the source code
    READ = "read"  # see builds, their logs and artifacts
    BUILD = "build"  # make and cancel builds
    ROSTER = "roster"  # see the nodes
    OPERATE = "operate"  # take nodes out of use and into use again
    JOIN = "join"  # be put on the roster
    PLACE = "place"  # act as a scheduler: forward, ask for reports, acknowledge
    HEALTH = "health"  # see whether this program lives and can work
    METRICS = "metrics"  # see how much it does


ALLOWED: dict[Permission, frozenset[Role]] = {
    permission: frozenset(Role) for permission in Permission
}

PROGRAM_HEADER = "Imagepool-Program"
"""Carries the id of the calling program; believed until programs prove who they are by
certificate.
"""
STORE_HEADER = "Imagepool-Store"
"""Carries the id of the calling scheduler's store."""
OWNER_HEADER = "Imagepool-Owner"
"""Whose builds these are; believed until clients prove who they are by token."""

_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")


def caller_of(request: HTTPServerRequest) -> Caller:
    """Who asks. Raises Invalid for an owner's name that is none."""
    program = request.headers.get(PROGRAM_HEADER, "")
    store = request.headers.get(STORE_HEADER, "")
    if program and program.isalnum() and len(program) <= 64:
        known = store if store.isalnum() and len(store) <= 64 else ""
        return Caller(owner="", role=Role.PROGRAM, program=program, store=known)
    owner = request.headers.get(OWNER_HEADER)
    if owner is None:
        return Caller()
    if not _OWNER.fullmatch(owner):
        raise Invalid(
            f"{OWNER_HEADER} is {owner[:40]!r}",
            field=OWNER_HEADER,
            expected="up to 128 letters, digits and . _ @ + -, the first one of the former",
        )
    return Caller(owner=owner)


def headers(caller: Caller) -> dict[str, str]:
    """What `caller_of` reads this caller from."""
    said = {PROGRAM_HEADER: caller.program, STORE_HEADER: caller.store}
    if not caller.program:
        said = {OWNER_HEADER: caller.owner}
    return {name: value for name, value in said.items() if value}


def check(caller: Caller, permission: Permission) -> None:
    """Raises Denied where the caller's role does not have the permission."""
    if caller.role not in ALLOWED[permission]:
        raise Denied(f"a {caller.role.value} may not {permission.value}")
