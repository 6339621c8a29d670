"""What schemathesis is given beside the document: how msgpack is written and read, builds that are
there, and that whatever URL it makes up leads to this machine.

Loaded by schemathesis in its own process (tests/api/test_conformance.py).
"""

import os
import re
from typing import Any
from urllib.parse import urlsplit

import msgpack
import schemathesis

NOWHERE = "http://127.0.0.1:9/"
"""A port that nobody listens on."""
BUILD = os.environ["KNOWN_BUILD"]
"""A build that has stopped, with an artifact."""
ARTIFACT = "image.iso"


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Called for each request with a body."""
    return _led_here(body)


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Called for each request with such: half of the ids that could be one are one."""
    if not path_parameters:
        return path_parameters
    found = dict(path_parameters)
    build, artifact = found.get("build"), found.get("artifact")
    if isinstance(build, str) and re.fullmatch("[0-9a-z]{1,64}", build) and len(build) % 2:
        found["build"] = BUILD
    if isinstance(artifact, str) and re.fullmatch("[A-Za-z][A-Za-z0-9.]*", artifact):
        found["artifact"] = ARTIFACT
    return found


@schemathesis.serializer("application/msgpack")
def packed(context: Any, value: Any) -> bytes:
    """What cannot be msgpack - a number that is too large - goes as a byte that means nothing."""
    try:
        body = msgpack.packb(_whole(value))
    except (TypeError, ValueError, OverflowError):
        return b"\xc1"
    return body if isinstance(body, bytes) else b"\xc1"


@schemathesis.deserializer("application/msgpack")
def unpacked(context: Any, response: Any) -> Any:
    """An answer's value."""
    return msgpack.unpackb(response.content)


def _led_here(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _led_here(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_led_here(inner) for inner in value]
    return NOWHERE if isinstance(value, str) and _is_url(value) else value


def _is_url(text: str) -> bool:
    """Whether anything could be asked for there."""
    try:
        return urlsplit(text).scheme.lower() in ("http", "https")
    except ValueError:
        return False


def _whole(value: Any) -> Any:
    """What JSON Schema calls an integer, such as 1.0, is one."""
    if isinstance(value, dict):
        return {key: _whole(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
