"""What a scheduler counts and shows: values of builds and rosters in, samples out."""

import asyncio

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from protocol.model.build import Build, new_build
from protocol.model.lifecycle import Event, advance
from protocol.model.messages import Roster, RosterEntry
from protocol.model.request import BuildRequest
from protocol.program.metrics import BuildCollector, Metrics, Program, ProgramHealth
from scheduler.metrics import PoolCollector, health, without_nodes

WAY = (Event.PLACE, Event.PREPARE, Event.RUN, Event.COLLECT)


@pytest.fixture
def metrics() -> Metrics:
    """Nothing has happened yet."""
    return Metrics(Program("s1", "tester", "scheduler"))


def a_build(*events: Event, key: str = "b1") -> Build:
    """Accepted at 100, each event 10 s after the one before."""
    build = new_build(key, BuildRequest(), origin="s1", owner="", now=100.0)
    for number, event in enumerate(events, 1):
        build = advance(build, event, 100.0 + 10 * number)
    return build


def lived(metrics: Metrics, *events: Event) -> None:
    """Told of a build value by value."""
    metrics.changed(None, a_build())
    for number in range(len(events)):
        metrics.changed(a_build(*events[:number]), a_build(*events[: number + 1]))


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """A sample's value."""
    return metrics.registry.get_sample_value(name, labels)


def node(state: str = "ready", **changes) -> RosterEntry:
    """A line of the roster."""
    line = RosterEntry("http://n", ("mdns",), state, "", id="n1", name="n", slots=2, used=1)
    return replace(line, **changes)


def roster(*nodes: RosterEntry) -> Roster:
    """A roster of these."""
    return Roster("tester", nodes, waiting=0, running=0)


def samples(collector) -> dict[tuple[str, ...], float]:
    """(name, label values...) -> value, of what is not 0."""
    registry = CollectorRegistry()
    registry.register(collector)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.value
    }


def test_a_build_that_succeeds_is_counted_once(metrics) -> None:
    """As a build, as an attempt, with its wait and its time on the node."""
    lived(metrics, *WAY, Event.SUCCEED)
    assert value(metrics, "imagepool_builds_accepted_total") == 1
    assert value(metrics, "imagepool_builds_total", result="succeeded") == 1
    assert value(metrics, "imagepool_attempts_total", outcome="succeeded") == 1
    assert value(metrics, "imagepool_queue_wait_seconds_sum") == 20
    name = "imagepool_attempt_duration_seconds"
    assert value(metrics, f"{name}_sum", outcome="succeeded") == 30
    assert value(metrics, f"{name}_count", outcome="succeeded") == 1


def test_steps_that_arrive_together_are_all_counted(metrics) -> None:
    """A node's report may tell of several at once."""
    metrics.changed(None, a_build())
    metrics.changed(a_build(Event.PLACE), a_build(*WAY, Event.FAIL))
    assert value(metrics, "imagepool_builds_total", result="failed") == 1
    assert value(metrics, "imagepool_queue_wait_seconds_count") == 1


def test_progress_without_a_step_counts_nothing(metrics) -> None:
    """A log that grows is no step."""
    running = a_build(*WAY[:3])
    metrics.changed(None, running)
    before = [sample for family in metrics.registry.collect() for sample in family.samples]
    metrics.changed(running, replace(running, log_size=5, revision=9))
    after = [sample for family in metrics.registry.collect() for sample in family.samples]
    ours = [s for s in after if s.name.startswith("imagepool")]
    assert ours == [s for s in before if s.name.startswith("imagepool")]


def test_a_lost_attempt_is_an_attempt_and_no_build(metrics) -> None:
    """The build waits again, from the loss on."""
    lived(metrics, *WAY[:2], Event.LOSE, *WAY, Event.SUCCEED)
    assert value(metrics, "imagepool_attempts_total", outcome="lost") == 1
    assert value(metrics, "imagepool_attempts_total", outcome="succeeded") == 1
    assert value(metrics, "imagepool_builds_total", result="lost") == 0
    assert value(metrics, "imagepool_queue_wait_seconds_count") == 2
    assert value(metrics, "imagepool_queue_wait_seconds_sum") == 40


def test_an_attempt_lost_before_it_began_took_no_time(metrics) -> None:
    """Whatever an earlier one took."""
    lived(metrics, *WAY[:2], Event.LOSE, Event.PLACE, Event.LOSE)
    assert value(metrics, "imagepool_attempts_total", outcome="lost") == 2
    name = "imagepool_attempt_duration_seconds"
    assert value(metrics, f"{name}_count", outcome="lost") == 1


def test_a_node_that_declines_does_not_end_the_wait(metrics) -> None:
    """It is counted among the attempts, and took no time."""
    lived(metrics, Event.PLACE, Event.DECLINE, *WAY)
    assert value(metrics, "imagepool_attempts_total", outcome="declined") == 1
    assert value(metrics, "imagepool_queue_wait_seconds_sum") == 40


def test_a_build_cancelled_while_it_waits_made_no_attempt(metrics) -> None:
    """It is a build, though."""
    lived(metrics, Event.CANCEL)
    assert value(metrics, "imagepool_builds_total", result="cancelled") == 1
    assert value(metrics, "imagepool_attempts_total", outcome="cancelled") == 0


def test_an_attempt_found_on_a_node_did_not_wait(metrics) -> None:
    """How long it waited is not known, or was counted before."""
    lived(metrics, Event.ADOPT, *WAY[1:], Event.SUCCEED)
    assert value(metrics, "imagepool_queue_wait_seconds_count") == 0
    assert value(metrics, "imagepool_attempts_total", outcome="succeeded") == 1


def test_a_build_that_begins_anew_under_its_id(metrics) -> None:
    """A later attempt of a scheduler above is another build here."""
    metrics.changed(None, a_build())
    metrics.changed(
        a_build(Event.CANCEL),
        replace(a_build(), created=500.0, history=(replace(a_build().history[0], at=500.0),)),
    )
    assert value(metrics, "imagepool_builds_accepted_total") == 2
    assert value(metrics, "imagepool_builds_total", result="cancelled") == 0


def test_a_clock_that_was_set_back_gives_no_negative_time(metrics) -> None:
    """The time is 0 then."""
    prepared = advance(a_build(Event.PLACE), Event.PREPARE, 50.0)
    metrics.changed(None, advance(prepared, Event.FAIL, 40.0))
    assert value(metrics, "imagepool_queue_wait_seconds_sum") == 0
    assert value(metrics, "imagepool_attempt_duration_seconds_sum", outcome="failed") == 0


def test_builds_on_record_by_stage_and_result() -> None:
    """And how long the oldest has waited, declined or not."""
    builds = [
        a_build(),
        a_build(Event.PLACE, Event.DECLINE),
        a_build(Event.PLACE, Event.LOSE),
        a_build(*WAY, Event.SUCCEED),
        a_build(*WAY),
    ]
    assert samples(BuildCollector(builds, lambda: 150.0)) == {
        ("imagepool_builds_kept", "queued", ""): 3,
        ("imagepool_builds_kept", "stopped", "succeeded"): 1,
        ("imagepool_builds_kept", "collecting", ""): 1,
        ("imagepool_oldest_waiting_seconds",): 50,
    }
    assert ("imagepool_oldest_waiting_seconds",) not in samples(BuildCollector(builds[3:]))


def test_nodes_by_state_slots_and_clocks() -> None:
    """Slots of those that build; two nodes of one name are two series; a state never heard of
    is shown too.
    """
    seen = roster(
        node(last_seen=2.0, clock=-0.5),
        node("busy", id="n2", last_seen=1.0),
        node("lost", id="n3", slots=8),
        node("unanswered", id="", name=""),
        node("strange", id="n4"),
    )
    assert samples(PoolCollector(lambda: seen, lambda: 1000.0)) == {
        ("imagepool_nodes", "ready"): 1,
        ("imagepool_nodes", "busy"): 1,
        ("imagepool_nodes", "lost"): 1,
        ("imagepool_nodes", "unanswered"): 1,
        ("imagepool_nodes", "strange"): 1,
        ("imagepool_pool_slots",): 4,
        ("imagepool_pool_slots_used",): 2,
        ("imagepool_node_last_seen_timestamp_seconds", "n1", "n"): 998,
        ("imagepool_node_last_seen_timestamp_seconds", "n2", "n"): 999,
        ("imagepool_node_clock_difference_seconds", "n1", "n"): -0.5,
    }


def test_a_pool_that_builds_nothing_says_why() -> None:
    """Some nodes by name, with their reasons; one that works is enough."""
    assert without_nodes(roster()) == "it has no nodes"
    silent = [node("silent", name=f"n{i}", reason="no answer for 12 s") for i in range(5)]
    words = without_nodes(roster(*silent))
    assert "n0 is silent (no answer for 12 s)" in words
    assert words.endswith("and 2 more")
    assert without_nodes(roster(*silent, node("busy"))) == ""


@pytest.mark.gen_test
async def test_problems_of_a_scheduler(metrics) -> None:
    """It leaves, has no nodes, and what its further parts say."""

    async def store() -> str:
        return "the disk is full"

    watched: ProgramHealth = health(metrics, (), roster, lambda: True, {"store": store})
    parts = [problem.part for problem in await watched.problems()]
    assert parts == ["program", "pool", "store"]


@pytest.mark.gen_test
async def test_the_event_loops_lag_is_measured(metrics, monkeypatch) -> None:
    """Again and again."""
    monkeypatch.setattr("protocol.program.metrics._PULSE", 0)
    watching = asyncio.create_task(metrics.watch_loop())
    for _ in range(9):
        await asyncio.sleep(0)
    watching.cancel()
    assert value(metrics, "imagepool_event_loop_lag_seconds_count") > 1
