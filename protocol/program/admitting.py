"""What a program's settings say of those who call it."""

from protocol.api.callers import ClientCallers, Rules
from protocol.api.failures import Failures
from protocol.errors import Invalid
from protocol.program.settings import ProgramSettings, host_and_port, is_loopback
from protocol.trust.accounts import Accounts


def client_callers(accounts: Accounts, settings: ProgramSettings) -> ClientCallers:
    """How the listener for clients knows who asks."""
    rules = Rules(settings.anonymous, settings.unproven, behind=bool(settings.public_url))
    failures = Failures(settings.failure_limit, settings.failure_window)
    return ClientCallers(accounts, rules, failures)


def check_reach(accounts: Accounts, settings: ProgramSettings, program: str) -> None:
    """Raises Invalid where others than the people of this machine could reach the program, and
    nobody said who of them may.
    """
    host, _ = host_and_port(settings.listen)
    if is_loopback(host) or not accounts.empty or settings.anonymous != "none":
        return
    raise Invalid(
        f"{settings.listen} can be reached by others, and nobody has a token",
        field="listen",
        expected=(
            f"a token first (imagepool token create NAME --role admin --program {program}),"
            " or --anonymous user to let everybody build who reaches this address"
        ),
    )
