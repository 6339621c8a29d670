"""Who may call a program, as handlers and the audit log see it; the port is `extras["people"]`."""

from typing import Protocol

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
