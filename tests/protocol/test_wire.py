"""Bytes to values: the same errors for JSON and msgpack, every hostile input an Invalid."""

import contextlib
import re

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from protocol import wire, wording
from protocol.errors import Invalid, PoolError
from protocol.model.build import Position
from protocol.model.messages import API_VERSION, BuildQuery, Report
from protocol.model.request import BuildRequest, Order
from protocol.program.beacon import Beacon, properties, read
from protocol.wire import JSON, MSGPACK, decode, encode, pointer
from tests.scheduler.test_placement import a_build, a_report

FORMATS = pytest.mark.parametrize("media_type", [JSON, MSGPACK])


@FORMATS
def test_a_value_comes_back_as_it_was(media_type) -> None:
    """With everything in it."""
    report = a_report("n", builds=(a_build(), a_build(image="x")))
    assert decode(encode(report, media_type), Report, media_type) == report


@pytest.mark.parametrize(
    ("plain", "field", "expected"),
    [
        ({"recipe": {"commands": [{"name": 1}]}}, "recipe.commands[0].name", "`str`"),
        ({"recipe": {"commands": [{}]}}, "recipe.commands[0].name", "to be given"),
        ({"recipe": {"x": 1}}, "recipe.x", "not to be given"),
        ({"guidance": {"priority": "high"}}, "guidance.priority", "`int`"),
        ({"guidance": {"labels": {"a b": "c"}}}, "guidance.labels", "a label: 1 to 63 letters"),
        ({"recipe": {"base": {"kind": "moon"}}}, "recipe.base.kind", "one of: image, dockerfile"),
        (
            {"recipe": {"base": {}}},
            "recipe.base.kind",
            "one of: image, dockerfile, download, build",
        ),
        (
            {"recipe": {"base": {"kind": "image", "pull": "now"}}},
            "recipe.base.pull",
            "one of: always, missing, never",
        ),
        (
            {"recipe": {"inputs": [{"name": "a", "content": {"kind": "x"}}]}},
            "recipe.inputs[0].content.kind",
            "one of: text, upload, url, artifact",
        ),
        (
            {"recipe": {"output": {"kind": "paths", "paths": ["a"]}}},
            "recipe.output.paths[0]",
            "an absolute path",
        ),
        ({"guidance": {"note": "x" * 4097}}, "guidance.note", "a text of at most 4096 characters"),
        (
            {"recipe": {"output": {"kind": "paths", "paths": []}}},
            "recipe.output.paths",
            "a list of at least 1 value",
        ),
        ([], "body", "`object`"),
    ],
)
def test_errors_name_the_field_and_what_was_expected(plain, field, expected) -> None:
    """In the same words for both formats."""
    found = []
    for body, media_type in ((encode(plain), JSON), (msgpack.packb(plain), MSGPACK)):
        with pytest.raises(Invalid) as refused:
            decode(body, BuildRequest, media_type)
        found.append((refused.value.field, refused.value.detail, refused.value.expected))
    assert found[0] == found[1]
    assert found[0][0] == field
    assert expected in found[0][2]


def _patterns(kind) -> set[str]:
    """Those that any value below this type must match."""
    text = str(msgspec.json.schema(kind))
    return set(re.findall(r"'pattern': ('(?:[^'\\]|\\.)*')", text))


@pytest.mark.parametrize("kind", [Order, BuildQuery])
def test_every_pattern_has_words(kind) -> None:
    """Nobody is to read a regular expression to learn what a label is."""
    assert _patterns(kind)
    assert not _patterns(kind) - wording._PATTERNS.keys()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "it is empty"),
        (b"\xc1", "a byte in it begins no value"),
        (b"\x81\xa1a", "it ends too early"),
        (b"\x81\x01\x01", "a name in a map is no text"),
        (b"\x80\x80", "1 bytes follow behind its end"),
        (b"\xa1\xff", "a text in it is not UTF-8"),
        (b"\x91" * 5000, "it is nested too deep"),
    ],
)
def test_what_is_wrong_with_msgpack(body, words) -> None:
    """In words that do not take the library's to be known."""
    with pytest.raises(Invalid) as refused:
        decode(body, BuildRequest, MSGPACK)
    assert refused.value.detail == f"the body is not msgpack: {words}"


@FORMATS
@given(body=some.binary(max_size=200))
def test_rubbish_is_refused_and_nothing_else_happens(media_type, body) -> None:
    """Whatever the bytes."""
    with contextlib.suppress(PoolError):
        decode(body, BuildRequest, media_type)


def test_a_pointer() -> None:
    """RFC 6901."""
    assert pointer("commands[0].name") == "/commands/0/name"
    assert pointer("a~b.c/d") == "/a~0b/c~1d"
    assert pointer("") == ""


@given(some.text(max_size=60))
def test_a_position_is_read_or_refused(text) -> None:
    """attempt:offset, and nothing else."""
    try:
        position = Position.parse(text)
    except ValueError:
        return
    assert Position.parse(str(position)) == position


BEACON = Beacon("abc123", "boot1", "default", "node", 8090, ("10.0.0.7", "fd00::7"), name="ada")


def test_a_beacon_is_read_as_it_was_advertised() -> None:
    """Every field of the record."""
    text = {key.encode(): value.encode() for key, value in properties(BEACON).items()}
    assert read(text, 8090, BEACON.addresses) == BEACON
    assert next(iter(properties(BEACON))) == "txtvers"


@pytest.mark.parametrize(
    "change",
    [
        {b"id": b""},
        {b"id": b"../x"},
        {b"role": b"king"},
        {b"api": b"-1"},
        {b"api": b"99999"},
        {b"name": b"\xff\x00"},
        {b"name": b"x" * 201},
        {b"id": None},
    ],
)
def test_a_beacon_that_makes_no_sense_is_none(change) -> None:
    """Anybody on the LAN may send one."""
    text = {key.encode(): value.encode() for key, value in properties(BEACON).items()}
    assert read({**text, **change}, 8090, BEACON.addresses) is None
    for port in (0, None, 70000):
        assert read(text, port, BEACON.addresses) is None
    assert read(text, 8090, ()) is None
    assert BEACON.api == API_VERSION


def test_what_programs_say_stays_small() -> None:
    """A report of an idle node is a poll's whole cost: well under a kilobyte."""
    assert len(wire.encode(a_report("n"), MSGPACK)) < 600


def _nested(depth: int, media_type: str) -> bytes:
    return {JSON: b"[" * depth + b"]" * depth, MSGPACK: b"\x91" * (depth - 1) + b"\x90"}[media_type]


@pytest.mark.parametrize("media_type", [JSON, MSGPACK])
def test_nesting_has_a_limit(media_type) -> None:
    """Lists and maps in each other: as many as said, and one more."""
    decode(_nested(20, media_type), list, media_type, nesting=20)
    with pytest.raises(Invalid, match="nested too deep"):
        decode(_nested(21, media_type), list, media_type, nesting=20)
    for depth in (100_000, 1_000_000):
        with pytest.raises(Invalid, match="nested too deep"):
            decode(_nested(depth, media_type), list, media_type)


@pytest.mark.parametrize("media_type", [JSON, MSGPACK])
@pytest.mark.parametrize(
    "value",
    [[0] * 99, [[]] * 99, {str(n): "" for n in range(49)}, ["," * 1000] * 99, ['"\\,' * 9] * 99],
)
def test_values_have_a_limit(value, media_type) -> None:
    """They and the names of a map count, what stands in a text does not; ten times as many are
    refused.
    """
    assert decode(encode(value, media_type), object, media_type, values=100) == value
    more = [value] * 10
    with pytest.raises(Invalid, match=r"too many values|exceeds max_"):
        decode(encode(more, media_type), object, media_type, values=100)
