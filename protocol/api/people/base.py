"""What the handlers of this family see: the port `extras["people"]`."""

from protocol.api.base import Handler
from protocol.api.people_port import PeoplePort


class PeopleHandler(Handler):
    """What sees them."""

    @property
    def people(self) -> PeoplePort:
        """Those of this program."""
        port: PeoplePort = self.context.extras["people"]
        return port
