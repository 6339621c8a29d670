"""The documented API as its client reads it: what can be expressed, what the answers mean."""

from typing import Any

import msgspec
import pytest

from protocol import wire
from protocol.errors import Invalid
from protocol.model.build import Artifact, CommandStatus, Stage
from protocol.model.lifecycle import Event
from protocol.model.recipe import (
    BuiltBase,
    Command,
    ImageBase,
    InputFile,
    NoOutput,
    Recipe,
    TextContent,
)
from protocol.model.request import BuildRequest, Guidance, Needs, Notice
from scheduler.core.plain import PlainAttempt, beyond
from scheduler.core.plain_api import (
    REDIRECT,
    BuildDocument,
    at_stage,
    file_name,
    on_node,
    read,
    stage_of,
    status_url,
    verdict,
    waiting,
)

NODE = "http://plain.test:8000"
ONE, TWO = Command("one", text="a"), Command("two", url="http://x.test/y", arguments=("-q",))


def asked(*commands: Command, guidance: Guidance | None = None, **recipe: Any) -> BuildRequest:
    """A request."""
    return BuildRequest(Recipe(commands or (ONE,), **recipe), guidance or Guidance())


EXPRESSIBLE = [
    asked(),
    asked(TWO),
    asked(ONE, TWO, keep_going=True),
    BuildRequest(Recipe(())),
    asked(base=ImageBase("debian:12")),
    asked(guidance=Guidance(priority=5, note="n", labels={"a": "b"})),
    asked(guidance=Guidance(notices=(Notice(url="http://a.test/"),), cancel_url="http://a.test/")),
]
BEYOND = [
    (asked(ONE, TWO), "an end at the first command that fails"),
    (asked(base=BuiltBase("a")), "any base but a container image"),
    (asked(base=ImageBase("a", pull="always")), "how an image is pulled"),
    (asked(base=ImageBase("a", credentials="c")), "how an image is pulled"),
    (asked(inputs=(InputFile("a", TextContent("b")),)), "inputs"),
    (msgspec.structs.replace(asked(), secrets=("s",)), "secrets"),
    (asked(output=NoOutput()), "any output but an ISO image"),
    (asked(guidance=Guidance(keep=60)), "how long the result is kept"),
    (asked(guidance=Guidance(needs=Needs(network=False))), "needs (network)"),
    (asked(guidance=Guidance(needs=Needs(labels=("a",), cpus=1))), "needs (labels, cpus)"),
    (asked(guidance=Guidance(needs=Needs(time_limit=9))), "needs (time_limit)"),
    (asked(Command("c", text="x", environment={"A": "b"})), "an environment (of the command 'c')"),
    (asked(Command("c", text="x", time_limit=9)), "time limits (of the command 'c')"),
]


@pytest.mark.parametrize("request_", EXPRESSIBLE)
def test_what_the_api_can_express(request_) -> None:
    """What only guides the build through the pool is the scheduler's own matter."""
    assert beyond(request_) == ""


@pytest.mark.parametrize(("request_", "words"), BEYOND)
def test_what_it_cannot(request_, words) -> None:
    """The reason, in words."""
    assert beyond(request_) == words


@pytest.mark.parametrize(
    ("location", "status"),
    [
        (f"{REDIRECT}?status=/status/7", "/status/7"),
        (f"{REDIRECT}?status=http%3A%2F%2Fplain.test%3A8000%2Fstatus%2F7", f"{NODE}/status/7"),
        (f"{REDIRECT}?&status=/status?id=7&x=1", "/status?id=7&x=1"),
        (f"{REDIRECT}?status=status/7#top", "status/7"),
    ],
)
def test_the_status_url_is_read_off_the_location(location, status) -> None:
    """Escaped or not, as servers do."""
    assert status_url(location) == status


@pytest.mark.parametrize(
    "location",
    [
        "",
        "/status/7",
        REDIRECT,
        f"{REDIRECT}?status=",
        f"{REDIRECT}?other=1",
        f"{REDIRECT}/x?status=/status/7",
        "http://imagepool.invalid.evil.test/built?status=/status/7",
        "http://user@imagepool.invalid/built?status=/status/7",
        "http://imagepool.invalid:x/built?status=/status/7",
        "http://[",
    ],
)
def test_any_other_location_makes_no_sense(location) -> None:
    """It says so."""
    with pytest.raises(Invalid, match=r"Location|URL"):
        status_url(location)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/status/7", "/status/7"),
        ("status/7", "/status/7"),
        ("?id=7", "/?id=7"),
        (f"{NODE}/status/7?a=b#c", "/status/7?a=b"),
        ("HTTP://PLAIN.test:8000/x", "/x"),
        ("//plain.test:8000/x", "/x"),
        ("/my image.iso", "/my%20image.iso"),
        ("/a\r\nHost: b", "/aHost:%20b"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("/é", "/%C3%A9"),
    ],
)
def test_urls_of_the_node_itself(url, path) -> None:
    """Whole or relative; what comes back is printable, and begins with one slash."""
    assert on_node(NODE, url, "status") == path


@pytest.mark.parametrize(
    "url",
    [
        "http://other.test:8000/x",
        "http://plain.test/x",
        "http://plain.test:80000/x",
        "https://plain.test:8000/x",
        "//other.test/x",
        "http://plain.test:8000@other.test/x",
        "http://me@plain.test:8000/x",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://[::1",
        "/" + "x" * 5000,
    ],
)
def test_urls_of_others_are_refused(url) -> None:
    """What a node reports is never fetched elsewhere."""
    with pytest.raises(Invalid, match=r"status is|URL is"):
        on_node(NODE, url, "status")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/download/7/CodersOS.iso", "CodersOS.iso"),
        ("/download/7/a.iso?x=/b.iso", "a.iso"),
        ("/download?id=7", "download"),
        ("/x/", "image.iso"),
        ("/x/..", "image.iso"),
        ("/x/a%2Fb.iso", "image.iso"),
        ("/x/" + "a" * 200, "image.iso"),
    ],
)
def test_an_image_is_called_as_its_url_ends(path, name) -> None:
    """Where that is fit for a file."""
    assert file_name(path) == name


def document(status: str, *commands: dict[str, Any], **more: Any) -> BuildDocument:
    """A build's status, as it comes."""
    return wire.convert({"status": status, "commands": list(commands), **more}, BuildDocument)


def stopped(name: str, output: str = "", exitcode: int = 0) -> dict[str, Any]:
    """A command that has ended."""
    return {"name": name, "status": "stopped", "output": output, "exitcode": exitcode}


RUNNING = {"name": "two", "status": "running", "output": "so far"}
WAITING = {"name": "three", "status": "waiting"}


def test_the_log_is_what_ended_commands_put_out_in_order() -> None:
    """A server's own commands are marked; what runs has begun where the log ends."""
    shown = document("running", stopped("own", "o"), stopped("one", "é", 3), RUNNING, WAITING)
    commands, log = read(shown, ("one", "two", "three"))
    assert log == "oé".encode()
    assert commands == (
        CommandStatus("own", 0, 1, 0, added=True),
        CommandStatus("one", 1, 3, 3),
        CommandStatus("two", 3),
        CommandStatus("three"),
    )


def test_what_is_behind_a_position_never_changes() -> None:
    """Output of a command that ended before an earlier one is told when that one has ended too."""
    early = document("running", RUNNING, stopped("three", "late"))
    commands, log = read(early, ("two", "three"))
    assert (log, commands[1]) == (b"", CommandStatus("three"))
    later = document("running", stopped("two", "so far, so good"), stopped("three", "late"))
    assert read(later, ("two", "three"))[1] == b"so far, so goodlate"


def test_of_a_build_that_stopped_everything_is_told() -> None:
    """Nothing will change any more."""
    shown = document("stopped", RUNNING, stopped("three", "!"))
    commands, log = read(shown, ("two", "three"))
    assert log == b"so far!"
    assert commands == (CommandStatus("two", 0), CommandStatus("three", 6, 7, 0))


def test_it_waits_until_a_command_has_begun() -> None:
    """Some servers say that a build waits between two commands."""
    names = ("one", "three")
    for expected, shown in (
        (Stage.PLACED, document("waiting", {"name": "one", "status": "waiting"}, WAITING)),
        (Stage.RUNNING, document("waiting", stopped("one"), WAITING)),
        (Stage.RUNNING, document("running", {"name": "one", "status": "waiting"}, WAITING)),
        (Stage.COLLECTING, document("stopped", stopped("one"), stopped("three"))),
    ):
        assert stage_of(shown, read(shown, names)[0]) is expected


@pytest.mark.parametrize(
    ("commands", "made", "event", "words"),
    [
        ([stopped("one")], True, Event.SUCCEED, ""),
        ([stopped("one")], False, Event.FAIL, "names none"),
        ([stopped("one", exitcode=-9)], True, Event.FAIL, "'one' ended with -9"),
        ([{"name": "one", "status": "running"}], True, Event.FAIL, "'one' never ended"),
        ([stopped("one"), stopped("own", exitcode=1)], True, Event.SUCCEED, ""),
        ([], False, Event.FAIL, "names none"),
    ],
)
def test_how_a_build_ended(commands, made, event, words) -> None:
    """Its own commands and its image decide; what the server adds does not."""
    names = tuple(command["name"] for command in commands[:1])
    statuses, _ = read(document("stopped", *commands), names)
    build = waiting(PlainAttempt("a", 1, "n", names, 0.0), "me")
    artifacts = (Artifact("image.iso", 1, "0" * 64),) if made else ()
    found, reason = verdict(
        msgspec.structs.replace(
            at_stage(build, Stage.COLLECTING), commands=statuses, artifacts=artifacts
        )
    )
    assert found is event
    assert words in reason


@pytest.mark.parametrize(
    "commands",
    [
        [],
        [stopped("two"), stopped("one")],
        [{"name": "one", "status": "stopped", "output": "x"}, stopped("two")],
        [{"name": "one", "status": "stopped", "exitcode": 0}, stopped("two")],
    ],
)
def test_commands_that_are_not_as_documented(commands) -> None:
    """Every command that was given is there, in order; one that has stopped says how."""
    with pytest.raises(Invalid, match="command"):
        read(document("running", *commands), ("one", "two"))
