"""Health and metrics over a real connection, for a program whose checks a test scripts."""

import asyncio
import json
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parsed_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parsed_text
from tornado.web import Application

from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.mount import application
from protocol.api.route import ApiSettings, Context, Route
from protocol.program import health
from protocol.program.metrics import Metrics, Program, ProgramHealth
from tests.api.test_image_creator import Api
from tests.callers import Locals

pytestmark = pytest.mark.gen_test


class Thing(Handler):
    """Something with a name in its path."""

    async def get(self, name: str) -> None:
        """Its name."""
        self.reply({"name": name})


@pytest.fixture
def checks() -> dict[str, Any]:
    """What is looked at; a test adds to it."""
    return {}


@pytest.fixture
def metrics() -> Metrics:
    """What a program called `watched` counts."""
    return Metrics(Program("abc", "watched", "node"))


@pytest.fixture
def app(checks: dict[str, Any], metrics: Metrics) -> Application:
    """The family beside another route."""
    extras = {"health": ProgramHealth(metrics, checks), "http": metrics.answered}
    thing = Route("/thing/([a-z]{1,9})", Thing, {"GET": Permission.READ})
    context: Any = Context(None, ApiSettings(), Locals(), extras)  # type: ignore[arg-type]
    return application(context, (*health.ROUTES, thing))


@pytest.fixture
def api(http_client, base_url) -> Api:
    """The program's server."""
    return Api(http_client, base_url)


def says(words: str) -> Any:
    """A check that says this."""

    async def check() -> str:
        return words

    return check


async def test_a_program_that_answers_lives(api, checks) -> None:
    """Whatever else is wrong with it; it says who it is."""
    checks["engine"] = says("its engine does not answer")
    answer = await api.call("GET", "/healthz")
    assert answer.code == 200
    told = json.loads(answer.body)
    assert told.pop("uptime_s") >= 0
    assert told.pop("version")
    assert told == {"status": "ok", "id": "abc", "name": "watched", "role": "node"}


async def test_a_program_is_ready_where_no_check_finds_anything(api, checks) -> None:
    """200 and no problems."""
    checks["engine"] = says("")
    answer = await api.call("GET", "/readyz")
    assert (answer.code, json.loads(answer.body)) == (200, {"status": "ready", "problems": []})


async def test_a_program_that_is_not_ready_says_everything_that_is_wrong(api, checks) -> None:
    """503 with each problem in words, and when to ask again."""
    checks |= {"engine": says("it is down"), "store": says(""), "disk": says("it is full")}
    answer = await api.call("GET", "/readyz")
    assert answer.code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert json.loads(answer.body) == {
        "status": "not ready",
        "problems": [
            {"part": "engine", "detail": "it is down"},
            {"part": "disk", "detail": "it is full"},
        ],
    }


async def test_a_check_that_hangs_is_a_problem_and_is_begun_once(
    api, checks, monkeypatch, caplog
) -> None:
    """However many ask meanwhile; when it ends, its word counts again."""
    monkeypatch.setattr("protocol.program.metrics._PATIENCE", 0.05)
    begun, answered = [], asyncio.Event()

    async def disk() -> str:
        begun.append(1)
        await answered.wait()
        return ""

    checks |= {"disk": disk}
    both = await asyncio.gather(*(api.call("GET", "/readyz") for _ in range(2)))
    for answer in (*both, await api.call("GET", "/readyz")):
        assert answer.code == 503
        assert "no answer" in json.loads(answer.body)["problems"][0]["detail"]
    assert len(begun) == 1
    answered.set()
    assert (await api.call("GET", "/readyz")).code == 200


async def test_a_check_that_fails_is_a_problem(api, checks, caplog) -> None:
    """Its kind is told, its trace is in the log."""

    async def store() -> str:
        raise OSError("no such place")

    checks["store"] = store
    answer = await api.call("GET", "/readyz")
    assert json.loads(answer.body)["problems"][0]["detail"].endswith("OSError")
    assert "no such place" not in answer.body.decode()
    assert "no such place" in caplog.text


async def test_metrics_in_the_text_format(api) -> None:
    """For whoever asks for nothing in particular."""
    answer = await api.call("GET", "/metrics")
    assert answer.code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in parsed_text(answer.body.decode())}
    (sample,) = families["imagepool_program_info"].samples
    assert sample.labels["id"] == "abc"
    assert "process_resident_memory_bytes" in families


async def test_metrics_in_openmetrics(api) -> None:
    """Where that is asked for, as Prometheus does."""
    wanted = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    answer = await api.call("GET", "/metrics", headers=wanted)
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.endswith(b"# EOF\n")
    families = {family.name: family for family in parsed_openmetrics(answer.body.decode())}
    assert families["imagepool_builds"].type == "counter"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_head_is_get_without_a_body(api, path) -> None:
    """Status and headers; nothing else is served there."""
    answer = await api.call("HEAD", path)
    assert (answer.code, answer.body) == (200, b"")
    assert (await api.call("POST", path)).code == 405


async def test_requests_are_counted_by_route(api, metrics) -> None:
    """By its pattern, whatever names clients make up; also paths and methods that are none."""
    for path in ("/thing/one", "/thing/two", "/nothing/here", "/nor/here"):
        await api.call("GET", path)
    await api.call("BREW", "/thing/one", allow_nonstandard_methods=True)
    counted = {
        (*(sample.labels[name] for name in ("method", "route", "status")), sample.value)
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "imagepool_http_request_duration_seconds_count"
    }
    assert counted == {
        ("GET", "/thing/*", "200", 2),
        ("GET", "other", "404", 2),
        ("other", "/thing/*", "405", 1),
    }
