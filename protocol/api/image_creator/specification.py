"""The image-creator family's documents, as pure translation: specification to request, redirect to
Location.

The documents are reference lines of the original API; what they leave open is decided here and
tested with its text in tests/api/test_image_creator.py.
"""

from urllib.parse import quote

from msgspec import Struct

from protocol.errors import Invalid
from protocol.model.checks import check_command, check_image
from protocol.model.recipe import Command, ImageBase, IsoOutput, Name, Recipe, Text
from protocol.model.request import BuildRequest, Guidance

_INTACT = "".join(map(chr, range(0x21, 0x7F)))


class CommandSpecification(Struct, frozen=True):
    """One command of a specification: `command` or `url`; where both are given, `command`
    counts.
    """

    name: Name
    arguments: tuple[Text, ...]
    command: Text | None = None
    url: str | None = None


class Specification(Struct, frozen=True):
    """The body of `POST /create`; keys it does not know are passed over."""

    redirect: str
    commands: tuple[CommandSpecification, ...]
    image: str | None = None


def to_request(specification: Specification, images: tuple[str, ...]) -> BuildRequest:
    """The build that is asked for. Raises Invalid, Denied, naming the field."""
    commands = tuple(
        _command(command, f"commands[{index}]")
        for index, command in enumerate(specification.commands)
    )
    if len(commands) > 256:
        raise Invalid("too many commands", field="commands", expected="at most 256 commands")
    if specification.image is not None:
        check_image(specification.image, images, "image")
    recipe = Recipe(
        commands=commands,
        base=ImageBase(specification.image),
        output=IsoOutput(),
        keep_going=True,
    )
    return BuildRequest(recipe, Guidance())


def redirect_to(redirect: str, status_url: str) -> str:
    """The client's URL with `status=STATUSURL` added and all else left as it was; before a
    fragment, if there is one.

    `:` and `/` of the status URL stay as they are, which a query allows, so that naive readers work
    too.
    """
    address, hash_sign, fragment = redirect.partition("#")
    separator = "&" if "?" in address else "?"
    joint = "" if address.endswith(("?", "&")) else separator
    argument = "status=" + quote(status_url, safe=":/")
    return quote(f"{address}{joint}{argument}{hash_sign}{fragment}", safe=_INTACT)


def _command(command: CommandSpecification, field: str) -> Command:
    if command.command is None and command.url is None:
        raise Invalid(
            f"{field} has neither command nor url",
            field=f"{field}.command",
            expected="command (a script's text) or url (where to fetch it)",
        )
    url = command.url if command.command is None else None
    wanted = Command(command.name, text=command.command, url=url, arguments=command.arguments)
    check_command(wanted, field)
    return wanted
