"""What the handlers of this family see: the port `extras["people"]`."""

from typing import Protocol

from protocol.api.base import Handler
from protocol.api.callers import ClientCallers
from protocol.api.failures import Failures
from protocol.trust.accounts import Accounts
from protocol.trust.audit import Audit


class PeoplePort(Protocol):
    """Who may call this program."""

    accounts: Accounts
    audit: Audit
    callers: ClientCallers
    failures: Failures


class PeopleHandler(Handler):
    """What sees them."""

    @property
    def people(self) -> PeoplePort:
        """Those of this program."""
        port: PeoplePort = self.context.extras["people"]
        return port
