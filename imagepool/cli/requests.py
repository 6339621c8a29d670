"""Reading what `imagepool build` is given: a native request, or an image-creator specification,
as JSON or TOML.
"""

import tomllib
from typing import Any

from protocol import wire
from protocol.api.specification import Specification, to_request
from protocol.errors import Invalid
from protocol.request import BuildRequest


def read_request(text: bytes, name: str) -> BuildRequest:
    """The request in a file. Raises Invalid, naming the field."""
    plain = _plain(text, name)
    if "recipe" in plain:
        return wire.convert(plain, BuildRequest)
    specification = wire.convert({"redirect": "", **plain}, Specification)
    return to_request(specification, ("*",))


def _plain(text: bytes, name: str) -> dict[str, Any]:
    if not name.endswith(".toml"):
        return wire.decode(text, dict[str, Any])
    try:
        return tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{name}: {error}", field="file", expected="TOML") from error
