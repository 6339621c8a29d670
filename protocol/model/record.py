"""What a program keeps of a build on disk: the build, and how far the program that placed it
knows of it.
"""

from collections.abc import Iterable
from itertools import islice

from msgspec import Struct
from msgspec.structs import replace

from protocol.model.build import Build, Stage
from protocol.model.messages import Forwarded
from protocol.model.notice_rules import signing
from protocol.model.request import BuildRequest, Forward, Secrets

PAGE = 200
"""Ended builds in one report; further ones follow when these are acknowledged."""


class Record(Struct, frozen=True):
    """One build as a program keeps it. `forward`, `store` and `acknowledged` concern builds that a
    scheduler placed here.
    """

    build: Build
    forward: Forward | None = None  # as it came; None: a client's build
    store: str = ""  # id of that scheduler's store that knows of this attempt
    acknowledged: bool = False  # that store has the attempt's end
    revision: int = 0  # grows with each write: what compare-and-set compares
    secrets: Secrets = {}  # what is still needed of them; never part of a report

    def now(self, build: Build) -> "Record":
        """The same of the build as it is now; of the secrets of one that has stopped only those are
        kept that sign a notice which is not delivered, where it is for us to deliver it.
        """
        if build.stage is not Stage.STOPPED:
            return replace(self, build=build)
        needed = signing(build) if self.secrets and self.forward is None else frozenset()
        kept = {name: value for name, value in self.secrets.items() if name in needed}
        return replace(self, build=build, secrets=kept)

    def settled(self, store: str) -> bool:
        """Whether this store has the attempt's end on record: it need not be reported to it."""
        return self.acknowledged and self.store == store

    def known_to(self, store: str) -> "Record":
        """As it is when this store has the attempt on record; its end only where it has ended."""
        return replace(self, store=store, acknowledged=self.build.stopped is not None)


class Reported(Struct, frozen=True):
    """What a report says of builds."""

    builds: tuple[Build, ...]  # without their requests
    wholes: dict[str, Forwarded]  # of those that the store may not have on record
    more: bool


def reported(records: Iterable[Record], store: str) -> Reported:
    """What a program reports to the scheduler that placed these builds and asks with this store:
    all that have not ended, and of those that have and are not settled the oldest.
    """
    unsettled = [record for record in records if not record.settled(store)]
    live = [record for record in unsettled if record.build.stage is not Stage.STOPPED]
    ended = (record for record in unsettled if record.build.stage is Stage.STOPPED)
    page = [*live, *islice(ended, PAGE)]
    return Reported(
        builds=tuple(replace(record.build, request=BuildRequest()) for record in page),
        wholes={
            record.build.id: Forwarded(record.build.request, record.forward)
            for record in page
            if record.store != store and record.forward is not None
        },
        more=len(page) < len(unsettled),
    )
