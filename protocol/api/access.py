"""Who may do what: one table. Every route names the permission that it needs; a test refuses a
route without one.

Until clients prove who they are, the table allows everything to everybody: programs serve the
loopback address, and other addresses only where the operator's settings name them.
"""

import enum

from tornado.httputil import HTTPServerRequest

from protocol.errors import Denied
from protocol.service import Caller, Role


class Permission(enum.Enum):
    """What a route lets its caller do."""

    STATUS = "status"  # see whether this program is ready
    SOURCE = "source"  # get the source code
    READ = "read"  # see builds, their logs and artifacts
    BUILD = "build"  # make and cancel builds
    ROSTER = "roster"  # see the nodes
    JOIN = "join"  # be put on the roster
    PLACE = "place"  # act as a scheduler: forward, ask for reports, acknowledge


ALLOWED: dict[Permission, frozenset[Role]] = {
    permission: frozenset(Role) for permission in Permission
}

PROGRAM_HEADER = "Imagepool-Program"
"""Carries the id of the calling program; believed until programs prove who they are by
certificate.
"""


def caller_of(request: HTTPServerRequest) -> Caller:
    """Who asks."""
    program = request.headers.get(PROGRAM_HEADER, "")
    if program and program.isalnum() and len(program) <= 64:
        return Caller(owner="", role=Role.PROGRAM, program=program)
    return Caller()


def check(caller: Caller, permission: Permission) -> None:
    """Raises Denied where the caller's role does not have the permission."""
    if caller.role not in ALLOWED[permission]:
        raise Denied(f"a {caller.role.value} may not {permission.value}")
