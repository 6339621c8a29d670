"""What a program is answered by somebody who means it ill: an error that is foreseen, whatever it
is, as loops that ask many programs end by any other.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from protocol import wire
from protocol.errors import Busy, Invalid, PoolError, Unavailable, Unsatisfiable
from protocol.model.build import Build, NodeReference, Result, Stage, new_build
from protocol.model.messages import Problem, Report
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL, ByteRange
from protocol.remote.client import HttpService
from scheduler.core import steps
from tests.scheduler.test_placement import a_report

NO_NUMBERS = ["\u00b2", "9" * 5000, "-1", "", "1e9", "\u0663", "0x10"]
"""Some are digits to Python, and none is a number of bytes or seconds."""


@asynccontextmanager
async def answered(status: int, headers: dict[str, str], body: bytes) -> AsyncIterator[HttpService]:
    """A client of a program that answers like this."""
    given = {"Content-Length": str(len(body)), **headers}
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{key}: {value}" for key, value in given.items())]
    said = "\r\n".join([*lines, "", ""]).encode() + body

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        service = HttpService(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        try:
            yield service
        finally:
            await service.close()


def problem(kind: str, detail: str = "no") -> bytes:
    """An error as our programs tell it."""
    return wire.encode(Problem(f"urn:{kind}", "t", 500, detail, detail, "", detail), wire.MSGPACK)


@pytest.mark.gen_test
@pytest.mark.parametrize("number", NO_NUMBERS)
async def test_errors_with_numbers_that_are_none(number: str) -> None:
    """Of the seconds to wait, and of the size of what a range is not of."""
    packed = {"Content-Type": wire.MSGPACK, "Retry-After": number}
    async with answered(503, packed, problem("Busy")) as service:
        with pytest.raises(Busy) as busy:
            await service.status(LOCAL)
        assert busy.value.retry_after == 5
    packed["Content-Range"] = f"bytes */{number}"
    async with answered(416, packed, problem("Unsatisfiable")) as service:
        with pytest.raises(Unsatisfiable) as refused:
            await service.open_artifact(LOCAL, "ab", "x")
        assert refused.value.size is None


@pytest.mark.gen_test
@pytest.mark.parametrize("number", NO_NUMBERS)
async def test_answers_with_numbers_that_are_none(number: str) -> None:
    """Of a log's attempt and place, and of the range of an artifact."""
    headers = {"Log-Attempt": number, "Log-Offset": "0"}
    async with answered(200, headers, b"") as service:
        with pytest.raises(Unavailable):
            await service.open_log(LOCAL, "ab", position=None)  # type: ignore[arg-type]
    for span in (f"bytes {number}-1/2", f"bytes 0-1/{number}"):
        async with answered(206, {"Content-Range": span}, b"hi") as service:
            with pytest.raises(Unavailable):
                await service.open_artifact(LOCAL, "ab", "x", ByteRange(0, 2))


@pytest.mark.gen_test
async def test_a_long_story() -> None:
    """An error's words end up on rosters and in records: they have a length."""
    said = problem("Denied", "x" * 1_000_000)
    async with answered(403, {"Content-Type": wire.MSGPACK}, said) as service:
        with pytest.raises(PoolError) as told:
            await service.status(LOCAL)
    error = told.value
    assert max(len(error.detail), len(error.field), len(error.expected)) == 4000


def a_build(**changes: Any) -> dict[str, Any]:
    """What a program says of a build, in plain values."""
    made = new_build("ab", BuildRequest(), origin="o", owner="ann", now=1000.0)
    plain: dict[str, Any] = msgspec.to_builtins(made)
    return {**plain, **changes}


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["../x", "..", ".", "/etc/x", "a/b", "", ".x", "a\n", "\x1b[2J"])
async def test_artifacts_whose_names_are_paths(name: str) -> None:
    """Whoever answers may be anybody who advertised a pool: `imagepool build FILE -o FOLDER/` saves
    what was made under its name, and so does what gives artifacts on.
    """
    artifact = {"name": name, "size": 1, "sha256": "0" * 64}
    said = wire.encode(a_build(artifacts=[artifact]), wire.MSGPACK)
    async with answered(200, {"Content-Type": wire.MSGPACK}, said) as service:
        with pytest.raises(Unavailable, match="makes no sense"):
            await service.get(LOCAL, "ab")


NAN = float("nan")


@pytest.mark.parametrize(
    "changes",
    [
        {"log_size": -1},
        {"log_size": (1 << 64) - 1},
        {"attempt": -1},
        {"created": NAN},
        {"started": 1e300},
        {"stopped": -1.0},
        {"usage": {"cpu": NAN}},
        {"usage": {"cpu": float("inf")}},
        {"usage": {"memory": -1}},
        {"artifacts": [{"name": "a", "size": -1, "sha256": ""}]},
        {"artifacts": [{"name": "a", "size": 1, "sha256": '"\r\nX: y'}]},
        {"commands": [{"name": "a", "start": -1}]},
        {"commands": [{"name": "a", "exit_code": 1 << 40}]},
        {"history": [{"at": NAN, "event": "place", "stage": "placed"}]},
    ],
    ids=str,
)
def test_builds_that_cannot_be(changes: dict[str, Any]) -> None:
    """Neither in an answer nor in a report: nothing of them reaches a record, a page or a sum."""
    for plain, kind in (
        (a_build(**changes), Build),
        (msgspec.to_builtins(a_report("n")) | {"builds": [a_build(**changes)]}, Report),
    ):
        with pytest.raises(Invalid):
            wire.decode(wire.encode(plain, wire.MSGPACK), kind, wire.MSGPACK)


@pytest.mark.parametrize(
    "changes",
    [
        {"priority": 1 << 40},
        {"slots": -1},
        {"used": -5},
        {"cpus": NAN},
        {"memory": (1 << 64) - 1},
        {"disk_free": -1},
        {"clock": float("inf")},
        {"name": "x" * 1025},
        {"labels": ["x" * 1025]},
        {"reason": "x" * (1 << 17)},
    ],
    ids=str,
)
def test_reports_that_cannot_be(changes: dict[str, Any]) -> None:
    """The node is not heard."""
    plain = {**msgspec.to_builtins(a_report("n")), **changes}
    with pytest.raises(Invalid):
        wire.decode(wire.encode(plain, wire.MSGPACK), Report, wire.MSGPACK)


def test_a_book_for_a_reason() -> None:
    """What a node gives as the reason why a build ended is kept as far as somebody reads it."""
    node = NodeReference("0f", "ada")
    record = steps.placed(
        new_build("ab", BuildRequest(), origin="o", owner="ann", now=1.0), node, 2.0, "it is"
    )
    told = replace(record, stage=Stage.STOPPED, result=Result.FAILED, reason="x" * 1_000_000)
    ended = steps.followed(record, told, 3.0, 3)
    assert (ended.stage, len(ended.reason)) == (Stage.STOPPED, 4000)
    assert max(len(step.cause) for step in ended.history) == 4000
