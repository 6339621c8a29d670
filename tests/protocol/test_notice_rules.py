"""Notices as pure rules: what there is to tell, what is said, when it is tried again."""

import hashlib
import hmac
import json

import pytest
from msgspec.structs import replace

from protocol.errors import Invalid
from protocol.model import notice_rules as rules
from protocol.model.build import Artifact, Build, NoticeRecord, Stage, State, new_build
from protocol.model.checks import check_request
from protocol.model.lifecycle import Event, advance
from protocol.model.record import Record
from protocol.model.request import BuildRequest, Forward, Guidance, Notice

URL = "http://receiver.example/hook"


def a_build(*events: Event, notices: tuple[Notice, ...] = (Notice(URL, secret="key"),)) -> Build:
    """A build to which this happened, a second apart."""
    request = BuildRequest(
        guidance=Guidance(notices=notices, labels={"team": "a"}, note="mine"), secrets=("key", "s")
    )
    build = new_build("1" * 32, request, origin="o", owner="ann", now=1.0)
    for at, event in enumerate(events, 2):
        build = advance(build, event, float(at), f"because {event.value}")
    return build


RAN = (Event.PLACE, Event.PREPARE, Event.RUN, Event.COLLECT, Event.SUCCEED)


@pytest.mark.parametrize(
    ("events", "states"),
    [
        ((), "waiting"),
        ((Event.PLACE, Event.DECLINE, Event.PLACE), "waiting"),
        ((Event.CANCEL,), "waiting stopped"),
        (RAN, "waiting running stopped"),
        ((Event.PLACE, Event.PREPARE, Event.LOSE, *RAN), "waiting running waiting running stopped"),
        ((*RAN[:2], Event.LOSE, Event.PLACE, Event.LOSE), "waiting running waiting"),
    ],
)
def test_a_change_is_one_of_the_documented_state(events, states) -> None:
    """What happens within a state is none; each is numbered, and as old as its first step."""
    build = a_build(*events)
    changes = rules.changes(build)
    assert " ".join(change.state.value for change in changes) == states
    assert [change.number for change in changes] == list(range(1, len(changes) + 1))
    assert changes[0].at == 1.0
    assert changes[-1].state is build.state
    assert [change.at for change in changes] == sorted({change.at for change in changes})


def test_what_is_left_to_tell_is_what_was_not_delivered() -> None:
    """One change after another, each notice for itself."""
    build = a_build(*RAN, notices=(Notice(URL), Notice(URL + "2")))
    told = []
    while (change := rules.pending(build, 1)) is not None:
        told.append(change.state)
        build = replace(build, notices=rules.delivered(build, 1))
    assert told == [State.WAITING, State.RUNNING, State.STOPPED]
    assert rules.outstanding(build) == (0,)
    assert build.notices == (NoticeRecord(), NoticeRecord(told=3))


def test_nothing_is_told_to_an_exchange() -> None:
    """It is kept and shown; a URL beside it is told."""
    build = a_build(notices=(Notice(exchange="e"), Notice(URL, exchange="e")))
    assert rules.outstanding(build) == (1,)


def test_a_delivery_ends_a_row_of_failures() -> None:
    """The next change has all its tries before it."""
    build = a_build(*RAN)
    build = replace(build, notices=rules.failed(build, 0, "it answered 500", tries=3))
    assert build.notices == (NoticeRecord(failures=1),)
    build = replace(build, notices=rules.delivered(build, 0))
    assert build.notices == (NoticeRecord(told=1),)


def test_after_the_last_try_it_is_given_up() -> None:
    """The record says why, and that nothing more is told."""
    build = a_build(*RAN)
    for number in (1, 2, 3):
        assert rules.outstanding(build) == (0,)
        build = replace(build, notices=rules.failed(build, 0, f"no {number}", tries=3))
    assert rules.outstanding(build) == ()
    assert build.notices[0].gave_up == "3 tries failed; the last one: no 3"


def test_pauses_double_up_to_an_hour() -> None:
    """Unless the first one is set to more."""
    assert [rules.pause(n, 0.5) for n in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]
    assert rules.pause(10_000, 1.0) == 3600.0
    assert [rules.pause(n, 7200.0) for n in (1, 2)] == [7200.0, 7200.0]


def test_a_notice_says_how_the_build_was_then() -> None:
    """A late one of an earlier change says nothing of the end."""
    build = replace(a_build(*RAN), attempt=2, artifacts=(Artifact("a.iso", 5, "0" * 64),))
    first, _, last = rules.changes(build)
    said = json.loads(rules.body(build, first, "https://pool.example/"))
    assert said == {
        "event": 1,
        "id": build.id,
        "status": "waiting",
        "result": None,
        "reason": "",
        "attempt": 2,
        "at": 1.0,
        "labels": {"team": "a"},
        "note": "mine",
        "artifacts": [],
        "build_url": f"https://pool.example/api/v1/builds/{build.id}",
    }
    said = json.loads(rules.body(build, last))
    assert (said["status"], said["result"]) == ("stopped", "succeeded")
    assert said["reason"] == "because succeed"
    assert said["artifacts"][0]["name"] == "a.iso"
    assert said["build_url"] == f"/api/v1/builds/{build.id}"


def test_a_notice_is_signed_with_time_and_body() -> None:
    """As somebody reads it who knows docs/api.md only; without a key there is no signature."""
    build = a_build()
    change = rules.changes(build)[0]
    headers = rules.headers(build, change, b'{"a": 1}', "geheim \u00fc", 1700000000.9)
    fields = dict(part.split("=") for part in headers["Imagepool-Signature"].split(","))
    assert fields["t"] == "1700000000"
    expected = hmac.digest("geheim \u00fc".encode(), b'1700000000.{"a": 1}', hashlib.sha256)
    assert fields["v1"] == expected.hex()
    assert headers["Imagepool-Event"] == f"{'1' * 32}/1"
    assert headers["Content-Type"] == "application/json"
    assert "Imagepool-Signature" not in rules.headers(build, change, b"", "", 0)


@pytest.mark.parametrize(
    ("status", "content", "unwanted"),
    [
        (200, b'{"building": false}', True),
        (200, b'{"building": false, "more": [1]}', True),
        (200, b'{"building": true}', False),
        (200, b'{"building": null}', False),
        (200, b'{"building": 0}', False),
        (200, b'{"building": "false"}', False),
        (200, b"{}", False),
        (200, b"[]", False),
        (200, b"false", False),
        (200, b"", False),
        (200, b'{"building": false', False),
        (200, b"\xff\xfe", False),
        (200, b"[" * 100_000, False),
        (204, b'{"building": false}', False),
        (302, b'{"building": false}', False),
        (404, b'{"building": false}', False),
        (500, b'{"building": false}', False),
    ],
)
def test_only_a_clear_no_ends_a_build(status, content, unwanted) -> None:
    """Whatever else is answered does not."""
    assert rules.says_unwanted(status, content) is unwanted


def test_of_a_stopped_builds_secrets_those_are_kept_that_still_sign() -> None:
    """Until all is told or given up; and nowhere but where the notice is sent."""
    secrets = {"key": "k", "s": "for the build"}
    running = a_build(*RAN[:3])
    assert Record(running, secrets=secrets).now(running).secrets == secrets
    stopped = a_build(*RAN)
    record = Record(running, secrets=secrets).now(stopped)
    assert record.secrets == {"key": "k"}
    told = replace(stopped, notices=(NoticeRecord(told=3),))
    assert record.now(told).secrets == {}
    given_up = replace(stopped, notices=(NoticeRecord(told=1, gave_up="x"),))
    assert record.now(given_up).secrets == {}
    forwarded = Record(running, Forward("1" * 32, "o", 1), secrets=secrets)
    assert forwarded.now(stopped).secrets == {}


def test_a_notice_that_nobody_would_hear_of_is_refused() -> None:
    """An exchange alone, where AMQP is not set up; not where another program sends it."""
    request = BuildRequest(guidance=Guidance(notices=(Notice(URL), Notice(exchange="e"))))
    with pytest.raises(Invalid) as refused:
        check_request(request, ("*",))
    assert refused.value.field == "guidance.notices[1].exchange"
    assert "AMQP is not set up here" in refused.value.detail
    check_request(request, ("*",), exchanges=True)
    beside = BuildRequest(guidance=Guidance(notices=(Notice(URL, exchange="e"),)))
    check_request(beside, ("*",))


def test_every_stage_has_a_state() -> None:
    """The same that the build itself shows."""
    build = a_build()
    for stage in Stage:
        there = replace(build, stage=stage, history=(replace(build.history[0], stage=stage),))
        assert rules.changes(there)[0].state is there.state
