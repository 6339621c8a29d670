"""Settings: defaults, a file, the environment and flags, later ones winning; the shipped
examples are the defaults.
"""

import json
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from config import resource
from node.config import NodeSettings
from protocol.errors import Invalid
from protocol.program.settings import load
from scheduler.config import SchedulerSettings

PROGRAMS = pytest.mark.parametrize(
    ("kind", "table"), [(NodeSettings, "node"), (SchedulerSettings, "scheduler")]
)


def names(kind: type[msgspec.Struct]) -> list[str]:
    """Of all settings: those of the program, then those of its tables."""
    tables = [getattr(kind(), name) for name in kind.__struct_fields__]
    tables = [table for table in tables if isinstance(table, msgspec.Struct)]
    own = [name for name in kind.__struct_fields__ if getattr(kind(), name) not in tables]
    return own + [name for table in tables for name in table.__struct_fields__]


@PROGRAMS
def test_the_shipped_example_is_the_defaults(kind, table) -> None:
    """Every setting stands in config/PROGRAM.toml, with its default, under a comment that says
    what it is.
    """
    text = resource(f"{table}.toml").read_text()
    assert msgspec.convert(tomllib.loads(text)[table], kind) == kind()
    shown = re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE)
    assert shown == names(kind)
    commented = re.findall(r"^# (?!\w+ = unset)\S.*\n(?:# )?(\w+) = ", text, re.MULTILINE)
    assert commented == shown


@PROGRAMS
def test_every_setting_has_a_comment_with_its_unit(kind, table) -> None:
    """The comment in the example is the one in the code."""
    example = resource(f"{table}.toml").read_text()
    for comment in re.findall(r"^# (?!\w+ = unset)(.*)\n(?:# )?\w+ = ", example, re.MULTILINE):
        sources = [
            (Path(__file__).parents[1] / path).read_text()
            for path in (
                f"{table}/config.py",
                "protocol/program/settings.py",
                "protocol/api/route.py",
                "protocol/api/traffic_ops/settings.py",
            )
        ]
        assert any(f"# {comment}\n" in source for source in sources), comment


def test_flags_win_over_the_environment_over_the_file(tmp_path) -> None:
    """In that order."""
    file = tmp_path / "node.toml"
    file.write_text('[node]\nslots = 2\npriority = 2\nname = "file"\n')
    environment = {"IMAGEPOOL_SLOTS": "3", "IMAGEPOOL_PRIORITY": "3", "IMAGEPOOL_LABELS": "a, b"}
    settings = load(
        NodeSettings, "node", file=file, environment=environment, flags={"slots": 4, "name": None}
    )
    assert (settings.slots, settings.priority, settings.name) == (4, 3, "file")
    assert settings.labels == ("a", "b")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[node]\nslots = -1\n", "slots"),
        ('[node]\nslots = "two"\n', "slots"),
        ("[node]\nslotz = 1\n", "slotz"),
        ("[nodes]\nslots = 1\n", "nodes"),
        ("slots", "config"),
        ('[node]\nlisten = "nowhere"\n', "listen"),
        ("[node]\nlabels = [1]\n", "labels[0]"),
        ("node = 5\n", "node"),
        ('[node]\nfetch_networks = ["public", "all"]\n', "fetch_networks[1]"),
        ('[node]\nnotice_networks = ["10.0.0.1/8"]\n', "notice_networks[0]"),
        ('[node]\nredirects = ["example.org"]\n', "redirects[0]"),
    ],
)
def test_a_wrong_file_names_the_setting(tmp_path, text, field) -> None:
    """And what was expected."""
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(Invalid) as refused:
        load(NodeSettings, "node", file=file, environment={})
    assert refused.value.field == field
    assert refused.value.expected
    assert str(file) in refused.value.detail


def test_a_wrong_setting_is_named_as_it_was_given(tmp_path) -> None:
    """In the file, in the environment or by a flag: where it was given last."""
    file = tmp_path / "x.toml"
    file.write_text("[node]\nslots = -1\n")

    def told(**given) -> str:
        with pytest.raises(Invalid) as refused:
            load(NodeSettings, "node", **given)
        return refused.value.detail

    assert told(file=file, environment={}).startswith(f"{file}: [node] slots: Expected `int` >= ")
    variables = {"IMAGEPOOL_SLOTS": "-2"}
    assert told(file=file, environment=variables) == "IMAGEPOOL_SLOTS is '-2'"
    assert told(environment={"IMAGEPOOL_LISTEN": "x"}) == "IMAGEPOOL_LISTEN is 'x'"
    flags = {"slots": -3}
    assert told(file=file, environment={}, flags=flags).startswith("--slots: Expected")


def test_os_versions_that_could_be_taken_for_each_other() -> None:
    """By what people choose, or by the file's name."""
    for other in ({"b": {"title": "A"}}, {"x/y": {"title": "B"}, "x_y": {"title": "C"}}):
        image = {"base": {"kind": "image", "name": "os"}}
        versions = {"a": {"title": "A", **image}, **{k: v | image for k, v in other.items()}}
        given = {"IMAGEPOOL_TRAFFIC_OPS": json.dumps({"os_versions": versions})}
        with pytest.raises(Invalid) as refused:
            load(NodeSettings, "node", environment=given)
        assert "2 have the" in refused.value.expected


def test_name_servers_are_addresses() -> None:
    """Shells read them on the machines that are installed."""
    for text in ('bogus"; reboot; "', "ns.example", ""):
        given = {"IMAGEPOOL_TRAFFIC_OPS": json.dumps({"name_servers": [text]})}
        with pytest.raises(Invalid) as refused:
            load(NodeSettings, "node", environment=given)
        assert "name_servers" in refused.value.expected


def test_a_familys_table() -> None:
    """In the environment it is a JSON object, as a whole; what is wrong in it is named."""
    given = {"IMAGEPOOL_TRAFFIC_OPS": '{"keep": 60}'}
    assert load(NodeSettings, "node", environment=given).traffic_ops.keep == 60
    for text in ('{"keep": 0}', '{"kept": 60}', "{"):
        with pytest.raises(Invalid) as refused:
            load(NodeSettings, "node", environment={"IMAGEPOOL_TRAFFIC_OPS": text})
        assert refused.value.field == "traffic_ops"
        assert refused.value.expected


@pytest.mark.parametrize("text", ["many", "-1", ""])
def test_a_wrong_variable_names_the_setting(text) -> None:
    """IMAGEPOOL_SLOTS that is no number of slots."""
    with pytest.raises(Invalid) as refused:
        load(NodeSettings, "node", environment={"IMAGEPOOL_SLOTS": text})
    assert refused.value.field == "slots"
