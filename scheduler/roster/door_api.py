"""How programs become members of the pool, on the listener for the pool; and what an admin says of
that, on the listener for clients.
"""

from typing import ClassVar, Protocol

from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.operation import Operation, answered, done
from protocol.api.route import Route
from protocol.errors import Conflict
from protocol.model.messages import (
    Admittance,
    AuthorityState,
    Invitation,
    Joining,
    Renewal,
    Revocation,
)
from protocol.ports.service import Caller, Role
from protocol.program.joining import AUTHORITY_PATH, JOIN_PATH, RENEW_PATH
from protocol.trust import certificates
from scheduler.roster.nodes_api import NODE


class DoorPort(Protocol):
    """Who is let in. Each verb raises Unavailable where it cannot be written down."""

    def authorities(self) -> tuple[bytes, ...]:
        """Certificates in PEM."""

    async def join(self, asked: Joining, address: str) -> Admittance:
        """See `scheduler/admission.py`."""

    async def renew(self, caller: Caller, asked: Renewal) -> Admittance:
        """See there."""

    def invitation(self) -> Invitation:
        """What somebody pastes on another machine."""

    def new_token(self) -> Invitation:
        """The same with another token; the one before admits nobody any more."""

    async def admit(self, node: str) -> None:
        """An admin's yes. Raises NotFound, Conflict."""

    async def revoke(self, node: str, reason: str) -> None:
        """Put it out of the pool. Raises NotFound."""

    def authority(self) -> AuthorityState:
        """Which authorities are believed, and who has yet to."""

    def replace_authority(self, step: str) -> AuthorityState:
        """Begin to replace it, or take the next step whoever is not ready. Raises Conflict."""


class DoorHandler(Handler):
    """What sees the door."""

    @property
    def port(self) -> DoorPort:
        """The pool's door. Raises Conflict where there is none."""
        port: DoorPort | None = self.context.extras["door"]
        if port is None:
            raise Conflict(
                "this scheduler is for programs on its own machine, which prove nothing",
                field="pool_listen",
                expected="--pool-listen HOST:PORT, where other machines reach it",
            )
        return port


class Authorities(DoorHandler):
    """What a join token is compared with."""

    def get(self) -> None:
        """To anybody: there is no secret in it."""
        self.reply(self.port.authorities())


class Join(DoorHandler):
    """The one thing that somebody without a certificate may ask."""

    NOTED: ClassVar[bool] = True

    async def post(self) -> None:
        """With a join token's secret."""
        asked, address = self.decoded(Joining), self.request.remote_ip or ""
        admittance = await self.port.join(asked, address)
        program = certificates.fingerprint(certificates.asked(asked.request))
        self.caller = Caller(owner="", role=Role.NODE, program=program)  # who did it
        self.reply(admittance)


class Renew(DoorHandler):
    """Another certificate for a member."""

    async def post(self) -> None:
        """Under the same key and role."""
        self.reply(await self.port.renew(self.caller, self.decoded(Renewal)))


class Invite(DoorHandler):
    """What brings another machine into the pool."""

    def get(self) -> None:
        """The token of now."""
        self.reply(self.port.invitation())

    def post(self) -> None:
        """Another token."""
        self.reply(self.port.new_token())


class AdmitNode(DoorHandler):
    """An admin's yes to a node that waits for it."""

    async def post(self, node: str) -> None:
        """It is in."""
        await self.port.admit(node)
        self.set_status(204)


class RevokeNode(DoorHandler):
    """Putting a node out of the pool."""

    async def post(self, node: str) -> None:
        """It is called no more, and what it asks is refused."""
        asked = self.decoded(Revocation) if self.received else Revocation()
        await self.port.revoke(node, asked.reason)
        self.set_status(204)


class TheAuthority(DoorHandler):
    """The pool's certificate authority."""

    def get(self) -> None:
        """Which there are, and which members have yet to hear of one."""
        self.reply(self.port.authority())

    def setup(self, step: str = "") -> None:  # type: ignore[override]
        """`step`: what a POST does."""
        self._step = step

    def post(self) -> None:
        """A step of replacing it."""
        self.reply(self.port.replace_authority(self._step))


POOL_ROUTES = (
    Route(AUTHORITY_PATH, Authorities, {"GET": Permission.ASK_TO_JOIN}),
    Route(JOIN_PATH, Join, {"POST": Permission.ASK_TO_JOIN}),
    Route(RENEW_PATH, Renew, {"POST": Permission.RENEW}),
)
"""On the listener for the pool only."""

_ADMIT = Permission.ADMIT

ROUTES = (
    Route(
        "/api/v1/pool/invitation",
        Invite,
        {"GET": _ADMIT, "POST": _ADMIT},
        operations={
            "GET": Operation(
                "The join token", answered(Invitation, "what to paste elsewhere"), errors=(409,)
            ),
            "POST": Operation(
                "Another join token",
                answered(Invitation, "the one before admits nobody now"),
                errors=(409,),
            ),
        },
    ),
    Route(
        "/api/v1/pool/authority",
        TheAuthority,
        {"GET": _ADMIT},
        operations={
            "GET": Operation(
                "The pool's certificate authority",
                answered(AuthorityState, "which are believed"),
                errors=(409,),
            )
        },
    ),
    *(
        Route(
            f"/api/v1/pool/authority/{step}",
            TheAuthority,
            {"POST": _ADMIT},
            {"step": step},
            operations={
                "POST": Operation(about, answered(AuthorityState, "how far it is"), errors=(409,))
            },
        )
        for step, about in (
            ("begin", "Make another authority, to take the place of this one"),
            ("next", "Take the next step, though some members are not ready for it"),
        )
    ),
    Route(
        f"/api/v1/nodes/{NODE}/admit",
        AdmitNode,
        {"POST": _ADMIT},
        operations={
            "POST": Operation("Let a node in that waits", done("it is in"), errors=(409, 502))
        },
    ),
    Route(
        f"/api/v1/nodes/{NODE}/revoke",
        RevokeNode,
        {"POST": _ADMIT},
        operations={
            "POST": Operation(
                "Put a node out of the pool",
                done("it is called no more, and what it asks is refused"),
                body=Revocation,
                body_optional=True,
                errors=(409, 502),
            )
        },
    ),
)
"""On the listener for clients."""
