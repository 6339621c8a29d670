"""Whether somebody is who they say, by a password: for every family in which people log in."""

from tornado.httputil import HTTPServerRequest

from protocol.api.people_port import PeoplePort
from protocol.errors import Denied, Unauthenticated
from protocol.trust.accounts import User


async def checked(people: PeoplePort, request: HTTPServerRequest, name: str, password: str) -> User:
    """Who has this name and password. Raises Unauthenticated, TooOften, Busy.

    Each try counts as a failure until it is known to be none: many at once are not more than were
    allowed one after the other.
    """
    address = people.callers.address_of(request)
    people.failures.count(address)
    try:
        user = await people.accounts.check_password(name, password)
    except Denied as error:
        raise Unauthenticated(error.detail, field="password", expected="that of a user") from error
    people.failures.forgive(address)
    return user
