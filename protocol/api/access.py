"""Who may do what: one table. Every route names the permission that it needs; a test refuses a
route without one. docs/security.md has the table in words, and a test compares the two.
"""

import enum

from protocol.errors import Denied, Unauthenticated
from protocol.ports.service import Caller, Role


class Permission(enum.Enum):
    """What a route lets its caller do."""

    STATUS = "status"  # see whether this program is ready
    SOURCE = "source"  # get the source code
    READ = "read"  # see builds, their logs and artifacts
    BUILD = "build"  # make and cancel builds
    ISOS = "make installer images"  # have an ISO made with a machine's settings
    ROSTER = "roster"  # see the nodes
    OPERATE = "operate"  # take nodes out of use and into use again
    ADMIT = "admit"  # say who may: tokens, users, join tokens, who is of the pool
    AUDIT = "audit"  # see what was done, and by whom
    ASK_TO_JOIN = "ask to join"  # ask for a certificate
    RENEW = "renew"  # ask for another one
    JOIN = "join"  # be put on the roster
    FETCH = "fetch"  # have what a ticket is for
    PLACE = "place"  # act as a scheduler: forward, acknowledge
    HEALTH = "health"  # see whether this program lives and can work
    METRICS = "metrics"  # see how much it does


_EVERYBODY = frozenset(Role)
_ADMINS = frozenset({Role.ADMIN})
_OPERATORS = _ADMINS | {Role.OPERATOR}
_USERS = _OPERATORS | {Role.USER}
_VIEWERS = _USERS | {Role.VIEWER}
_MEMBERS = frozenset({Role.NODE, Role.PROGRAM})

ALLOWED: dict[Permission, frozenset[Role]] = {
    Permission.STATUS: _EVERYBODY,
    Permission.SOURCE: _EVERYBODY,
    Permission.HEALTH: _EVERYBODY,
    Permission.METRICS: _VIEWERS,
    Permission.READ: _VIEWERS | {Role.PROGRAM},
    Permission.BUILD: _USERS | {Role.PROGRAM},
    Permission.ISOS: _OPERATORS,
    Permission.ROSTER: _VIEWERS,
    Permission.OPERATE: _OPERATORS,
    Permission.ADMIT: _ADMINS,
    Permission.AUDIT: _ADMINS,
    Permission.ASK_TO_JOIN: _MEMBERS | {Role.NOBODY},
    Permission.RENEW: _MEMBERS,
    Permission.JOIN: _OPERATORS | _MEMBERS,
    Permission.FETCH: frozenset({Role.NOBODY}),
    Permission.PLACE: frozenset({Role.PROGRAM}),
}


def check(caller: Caller, permission: Permission) -> None:
    """Raises Denied where the caller's role does not have the permission, Unauthenticated where it
    is nobody and might be somebody who has.
    """
    if caller.role in ALLOWED[permission]:
        return
    if caller.role is Role.NOBODY:
        raise Unauthenticated(
            f"who is to {permission.value} here has to say who they are",
            field="Authorization",
            expected="Bearer and a token",
        )
    raise Denied(f"a {caller.role.value} may not {permission.value}")
