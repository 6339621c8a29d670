"""Notices as pure rules: which changes of a build's state there are to tell, what is said of one,
how it is signed, when a notice that failed is sent again, and what an answer to `cancel_url` means.

The history says how many changes there were, the build's `notices` how many of them were
delivered: what is left to tell is the difference, after a restart as before. docs/api.md has what
receivers see.
"""

import hashlib
import hmac
import json
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from protocol.errors import Invalid
from protocol.model.build import Build, NoticeRecord, State, state_of
from protocol.model.request import BuildRequest

EVENT_HEADER = "Imagepool-Event"
SIGNATURE_HEADER = "Imagepool-Signature"
UNWANTED = "its requester no longer wants it"
"""The reason of a build that is cancelled because its `cancel_url` said so."""
NO_KEY = "the secret that signs it is lost"
"""Why a notice is given up at once: the store that had its secret is gone."""

_LONGEST = 3600.0  # seconds between two tries, however many failed


class Change(Struct, frozen=True):
    """A change of a build's documented state; acceptance is the first."""

    number: int  # from 1
    at: float  # seconds since the epoch
    state: State
    cause: str


def changes(build: Build) -> tuple[Change, ...]:
    """All changes of the build's state so far."""
    found: list[Change] = []
    for step in build.history:
        state = state_of(step.stage)
        if not found or found[-1].state is not state:
            found.append(Change(len(found) + 1, step.at, state, step.cause))
    return tuple(found)


def records(build: Build) -> tuple[NoticeRecord, ...]:
    """How far each notice of the request is."""
    missing = len(build.request.guidance.notices) - len(build.notices)
    return (*build.notices, *(NoticeRecord() for _ in range(missing)))


def pending(build: Build, index: int) -> Change | None:
    """What this notice is to tell next; None where there is nothing now."""
    record = records(build)[index]
    if record.gave_up or build.request.guidance.notices[index].url is None:
        return None
    every = changes(build)
    return every[record.told] if record.told < len(every) else None


def outstanding(build: Build) -> tuple[int, ...]:
    """The notices that have something to tell, by their places in the request."""
    notices = build.request.guidance.notices
    return tuple(index for index in range(len(notices)) if pending(build, index) is not None)


def signing(build: Build) -> frozenset[str]:
    """Names of the secrets that sign what is still to be told of a build that has stopped."""
    notices = build.request.guidance.notices
    return frozenset(
        secret for index in outstanding(build) if (secret := notices[index].secret) is not None
    )


# What becomes of a try


def delivered(build: Build, index: int) -> tuple[NoticeRecord, ...]:
    """The records when one more change was delivered."""
    record = records(build)[index]
    return _with(build, index, NoticeRecord(told=record.told + 1))


def failed(build: Build, index: int, why: str, tries: int) -> tuple[NoticeRecord, ...]:
    """The records when a try failed; after `tries` in a row no further one is made."""
    record = records(build)[index]
    failures = record.failures + 1
    words = f"{failures} tries failed; the last one: {why}" if failures >= tries else ""
    return _with(build, index, replace(record, failures=failures, gave_up=words))


def abandoned(build: Build, index: int, why: str) -> tuple[NoticeRecord, ...]:
    """The records when no try makes sense."""
    return _with(build, index, replace(records(build)[index], gave_up=why))


def pause(failures: int, first: float) -> float:
    """Seconds until the next try: doubling from `first`, an hour at most."""
    return min(first * 2.0 ** min(failures - 1, 63), max(first, _LONGEST))


def _with(build: Build, index: int, record: NoticeRecord) -> tuple[NoticeRecord, ...]:
    every = list(records(build))
    every[index] = record
    return tuple(every)


# What is said


def body(build: Build, change: Change, base_url: str = "") -> bytes:
    """What is posted, JSON. What belongs to the end is said with the end only; `base_url`: what
    clients call this program, where that is set.
    """
    stopped = change.state is State.STOPPED
    guidance = build.request.guidance
    said: dict[str, Any] = {
        "event": change.number,
        "id": build.id,
        "status": change.state.value,
        "result": build.result.value if stopped and build.result is not None else None,
        "reason": change.cause,
        "attempt": build.attempt,
        "at": change.at,
        "labels": guidance.labels,
        "note": guidance.note,
        "artifacts": msgspec.to_builtins(build.artifacts) if stopped else [],
        "build_url": f"{base_url.rstrip('/')}/api/v1/builds/{build.id}",
    }
    return json.dumps(said).encode()


def headers(build: Build, change: Change, content: bytes, key: str, now: float) -> dict[str, str]:
    """The headers of a POST; without a key it is not signed."""
    plain = {
        "Content-Type": "application/json",
        EVENT_HEADER: f"{build.id}/{change.number}",
    }
    return {**plain, SIGNATURE_HEADER: signature(key, int(now), content)} if key else plain


def signature(key: str, at: int, content: bytes) -> str:
    """HMAC-SHA256 of the time and the body, so that an old notice cannot pass for a new one."""
    signed = f"{at}.".encode() + content
    return f"t={at},v1={hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()}"


def says_unwanted(status: int, content: bytes) -> bool:
    """Whether an answer to `cancel_url` ends the build: a 200 whose JSON has `"building": false`,
    and nothing else.
    """
    if status != 200:
        return False
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("building") is False


# What is accepted


def check_exchanges(request: BuildRequest) -> None:
    """Raises Invalid for a notice that only an exchange would hear of: where AMQP is not set up,
    nobody would be told.
    """
    for index, notice in enumerate(request.guidance.notices):
        if notice.exchange is not None and notice.url is None:
            field = f"guidance.notices[{index}].exchange"
            raise Invalid(
                f"{field} names an exchange, and AMQP is not set up here: nobody would be told",
                field=field,
                expected="a url beside it, or no such notice",
            )
