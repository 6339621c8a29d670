"""What the types of a request cannot say: names, URLs and texts that must make sense before
anything is started.
"""

import fnmatch
import re
from urllib.parse import urlsplit

from protocol.errors import Denied, Invalid
from protocol.model import IMAGE_NAME, BuildRequest, Command

_PRINTABLE = re.compile(r"[^\x00-\x20\x7f-\xa0]+")
_URL_LIMIT = 8192  # characters


def check_request(request: BuildRequest, images: tuple[str, ...]) -> None:
    """Raises Invalid, or Denied for an image that none of the operator's patterns allows; names
    the field.
    """
    if request.recipe.base.name is not None:
        check_image(request.recipe.base.name, images, "recipe.base.name")
    for index, command in enumerate(request.recipe.commands):
        check_command(command, f"recipe.commands[{index}]")


def check_command(command: Command, field: str) -> None:
    """Raises Invalid: one of text and URL, and nothing that cannot be handed to a process."""
    if (command.text is None) == (command.url is None):
        raise Invalid(
            f"{field} has neither text nor url, or both",
            field=field,
            expected="text (a script) or url (where to fetch it)",
        )
    if command.url is not None:
        check_url(command.url, f"{field}.url")
    for index, argument in enumerate(command.arguments):
        _check_word(argument, f"{field}.arguments[{index}]")
    for name, value in command.environment.items():
        _check_word(value, f"{field}.environment.{name}")


def check_image(name: str, patterns: tuple[str, ...], field: str) -> None:
    """Raises Invalid where this is no image name, Denied where the operator does not allow it."""
    if not IMAGE_NAME.fullmatch(name):
        raise Invalid(
            f"{field} is {name[:80]!r}", field=field, expected="an image name, such as debian:12"
        )
    if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
        allowed = ", ".join(patterns) or "none"
        raise Denied(
            f"the image {name!r} is not allowed here",
            field=field,
            expected=f"a name like one of: {allowed}",
        )


def check_url(url: str, field: str) -> None:
    """Raises Invalid where this is not a whole http or https URL of printable characters."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or len(url) > _URL_LIMIT or not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise Invalid(
            f"{field} is {url[:80]!r}",
            field=field,
            expected="an http or https URL, without spaces and control characters",
        )


def _check_word(word: str, field: str) -> None:
    if "\0" in word or (not word.isascii() and _has_surrogates(word)):
        raise Invalid(
            f"{field} has a character that no process can be given",
            field=field,
            expected="text without NUL and half characters",
        )


def _has_surrogates(word: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in word)
