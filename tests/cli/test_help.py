"""What `--help` says, for every command, and how soon; settings; completion."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import click
import click.testing
import msgspec
import pytest

from imagepool.cli import cli
from imagepool.cli.config import settings_of
from tests.cli.shell import PROGRAM, ROOT, clean, imagepool

SLOW = {"aiohttp", "docker", "rich", "tornado", "yaml", "zeroconf"}
"""What help must not wait for."""


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, groups too."""
    yield words
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name)


ALL = tuple(commands(cli))


def resolved(words: tuple[str, ...]) -> click.Command:
    """The command of these words."""
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    return command


def help_of(words: tuple[str, ...]) -> str:
    """What the command says of itself, in 80 columns."""
    told = click.testing.CliRunner().invoke(
        cli, [*words, "--help"], prog_name="imagepool", terminal_width=80
    )
    assert told.exit_code == 0, told.output
    return told.output


def test_there_are_all_the_commands() -> None:
    """So that the tests below are about them."""
    assert {words[0] for words in ALL if words} == {
        *("build", "log", "ls", "show", "explain", "download", "cancel", "retry", "pin", "unpin"),
        *("delete", "status", "nodes", "cordon", "uncordon", "drain", "up", "scheduler", "node"),
        *("config", "doctor", "backup", "completion", "invite", "admit", "revoke", "authority"),
        *("token", "user"),
    }
    assert ("config", "client") in ALL


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_reads_well(words) -> None:
    """No line is over 80 columns, every option has words of its own, there is an example."""
    told = help_of(words)
    assert not [line for line in told.splitlines() if len(line) > 80]
    assert re.search(r"Examples?:\n +imagepool", told)
    command = resolved(words)
    assert command.help
    silent = [
        option.name
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert not silent


@pytest.mark.parametrize("words", [words for words in ALL if words], ids=" ".join)
def test_every_command_may_print_json(words) -> None:
    """But groups, and the programs, which serve and print nothing."""
    flags = {flag for parameter in resolved(words).params for flag in parameter.opts}
    serves = words in (("up",), ("scheduler",), ("node",))
    group = isinstance(resolved(words), click.Group)
    assert ("--json" in flags) == (not serves and not group)


def test_help_and_completion_wait_for_nothing() -> None:
    """No command's help imports servers, clients, engines or drawing."""
    code = f"""
import sys
from imagepool.cli import main
for words in {ALL!r}:
    try:
        main([*words, "--help"])
    except SystemExit as ended:
        assert not ended.code
print(*sorted({SLOW!r} & set(sys.modules)), file=sys.stderr)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stderr.split() == []


def test_the_package_itself_is_light() -> None:
    """`import imagepool` imports no client; `from imagepool import Client` does."""
    code = "import sys, imagepool; print('aiohttp' in sys.modules); from imagepool import Client; "
    code += "print('aiohttp' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(
    ("shell", "mark"),
    [("bash", "complete -o"), ("zsh", "#compdef imagepool"), ("fish", "--command imagepool")],
)
@pytest.mark.gen_test(timeout=30)
async def test_completion_scripts(shell, mark) -> None:
    """What the shell reads asks us with the variable that we answer."""
    ran = await imagepool("completion", shell)
    assert ran.code == 0
    assert mark in ran.out
    assert "_IMAGEPOOL_COMPLETE" in ran.out


def test_bash_takes_the_script() -> None:
    """And completes `imagepool` from then on."""
    script = subprocess.run(
        [*PROGRAM, "completion", "bash"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    ran = subprocess.run(
        ["bash"],
        input=f"{script}\ncomplete -p imagepool",
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.endswith(" imagepool\n")
    assert not ran.stderr


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("imagepool can", "cancel"),
        ("imagepool build --det", "--detach"),
        ("imagepool ls --status ru", "running"),
        ("imagepool config no", "node"),
    ],
)
def test_what_a_shell_is_answered(typed, wanted) -> None:
    """Commands, options and choices, as bash asks."""
    asked = {
        "_IMAGEPOOL_COMPLETE": "bash_complete",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    code = "from imagepool.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=clean(asked), capture_output=True, text=True, check=True
    )
    assert f"plain,{wanted}" in ran.stdout.split()


@pytest.mark.gen_test(timeout=30)
async def test_config_says_where_each_value_comes_from(tmp_path) -> None:
    """Default, file, environment, flag; later ones win."""
    file = tmp_path / "pool.toml"
    file.write_text('[node]\nslots = 2\npriority = 2\nname = "file"\n[scheduler]\nattempts = 5\n')
    environment = {"IMAGEPOOL_PRIORITY": "3", "IMAGEPOOL_SLOTS": "3", "BASE_IMAGE": "mine:1"}
    ran = await imagepool(
        *("config", "node", "--config", str(file), "--slots", "4", "--json"),
        environment=environment,
    )
    assert ran.code == 0, ran.err
    told = {each["name"]: (each["value"], each["source"]) for each in ran.json["settings"]}
    assert told["slots"] == (4, "flag")
    assert told["priority"] == (3, "environment IMAGEPOOL_PRIORITY")
    assert told["base_image"] == ("mine:1", "environment BASE_IMAGE")
    assert told["name"] == ("file", f"file {file}")
    assert told["listen"][1] == "default"
    plain = await imagepool("config", "scheduler", "--config", str(file))
    assert re.search(rf"^attempts +5 +file {file}$", plain.out, re.MULTILINE)
    assert plain.out.startswith("SETTING")


@pytest.mark.gen_test(timeout=30)
async def test_config_of_the_client() -> None:
    """Where the pool is looked for."""
    ran = await imagepool("config", "client", "--json", url="http://x")
    told = {each["name"]: (each["value"], each["source"]) for each in ran.json["settings"]}
    assert told["url"] == ("http://x", "environment IMAGEPOOL_URL")
    assert told["pool"] == ("default", "default")
    ran = await imagepool("config", "client", "--url", "http://y", url="http://x")
    assert re.search(r'^url +"http://y" +flag$', ran.out, re.MULTILINE)


@pytest.mark.gen_test(timeout=30)
async def test_config_refuses_what_the_program_would_refuse() -> None:
    """In the same words, with exit code 2; in JSON too."""
    ran = await imagepool("config", "node", "--json", environment={"IMAGEPOOL_SLOTS": "many"})
    assert ran.code == 2
    assert json.loads(ran.err)["field"] == "slots"


@pytest.mark.parametrize("name", ["join_token", "client_secret", "password"])
def test_config_shows_no_secrets(name) -> None:
    """Whether one is set is all that is said."""
    kind = msgspec.defstruct("Settings", [(name, str, "")])
    (setting,) = settings_of(kind("hush"), "node", None, {name: "hush"})
    assert (setting.value, setting.source) == ("(hidden)", "flag")
    (setting,) = settings_of(kind(), "node", None, {})
    assert (setting.value, setting.source) == ("", "default")


def test_config_shows_no_password_in_a_url() -> None:
    """Nor who it is of; the rest of the URL stays."""
    kind = msgspec.defstruct("Settings", [("urls", tuple[str, ...]), ("url", str)])
    urls = ("http://ada:hush@h:1/x", "http://h:1/a@b")
    shown = settings_of(kind(urls, urls[0]), "node", None, {})
    hidden = "http://(hidden)@h:1/x"
    assert [setting.value for setting in shown] == [(hidden, urls[1]), hidden]


def test_the_version() -> None:
    """`--version`."""
    ran = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"imagepool, version \d+\.\d+\.\d+\n", ran.stdout)
