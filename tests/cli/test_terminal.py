"""The command line on a pseudo-terminal: colour, the line that says what happens now, the bar; and
none of these in a pipe.
"""

import re

import pytest

from imagepool import AsyncClient
from imagepool.cli import terminal, words
from imagepool.cli.exits import USAGE, Failure
from protocol.errors import PoolError
from protocol.model.build import State
from protocol.model.messages import Explanation, Refusal
from tests.cli.shell import imagepool, on_a_terminal
from tests.client.pool import a_pool
from tests.client.test_client import recipe

COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


@pytest.mark.gen_test(timeout=90)
async def test_a_build_shows_what_happens_now_and_how_it_ended_in_colour(tmp_path) -> None:
    """The last line says which command runs; it is gone when the build has ended."""
    command = ("build", "-c", "print hello\nsleep 1.5", "--output", "none")
    async with (
        a_pool(tmp_path, name="ada") as pool,
        on_a_terminal(*command, url=pool.url) as terminal,
    ):
        await terminal.until(r"command 1 of 1 on ada: print hello sleep 1\.5")
        assert await terminal.ended() == 0
    assert b"hello\r\n" in terminal.seen
    assert re.search(
        rb"\x1b\[32mbuild [0-9a-f]{32} succeeded after [0-9.]+ s on ada", terminal.seen
    )
    erased = terminal.seen.rindex(b"\r\x1b[2K")
    assert b"command 1 of 1" not in terminal.seen[erased:]


@pytest.mark.gen_test(timeout=90)
@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
async def test_colour_is_left_out_where_that_is_asked_for(tmp_path, environment) -> None:
    """NO_COLOR leaves the rest as it is; a dumb terminal gets plain lines only."""
    command = ("build", "-c", "print hello\nexit 1", "--output", "none")
    async with (
        a_pool(tmp_path) as pool,
        on_a_terminal(*command, url=pool.url, environment=environment) as terminal,
    ):
        assert await terminal.ended() == 1
        assert b" failed after " in terminal.seen
        assert not COLOUR.search(terminal.seen)
        if "TERM" in environment:
            assert b"\x1b" not in terminal.seen


@pytest.mark.gen_test(timeout=90)
async def test_a_download_has_a_bar_on_a_terminal_and_none_in_a_pipe(tmp_path) -> None:
    """Name, bytes, and all of them in the end."""
    async with a_pool(tmp_path) as pool, AsyncClient(pool.url) as client:
        build = await client.wait((await client.submit(recipe("artifact 7000000", output=True))).id)
        command = ("download", build.id, "-o", "x.iso")
        async with on_a_terminal(*command, url=pool.url, cwd=tmp_path) as terminal:
            assert await terminal.ended() == 0
        text = COLOUR.sub(b"", terminal.seen)
        assert re.search(rb"x\.iso .*7\.0/7\.0 MB", text)
        assert "━".encode() in text
        piped = await imagepool(*command, url=pool.url, cwd=tmp_path)
        assert (piped.out, piped.err) == (f"{build.artifacts[0].sha256}  x.iso\n", "")


@pytest.mark.gen_test(timeout=90)
async def test_ctrl_c_on_a_terminal_leaves_the_screen_in_order(tmp_path) -> None:
    """The line that says what happens now is gone before the words about going back."""
    command = ("build", "-c", "print hello\nhang", "--output", "none")
    async with (
        a_pool(tmp_path) as pool,
        on_a_terminal(*command, url=pool.url) as terminal,
    ):
        await terminal.until("command 1 of 1")
        terminal.interrupt()
        assert await terminal.ended() == 130
        (words,) = re.findall(rb"\x1b\[2K\r\n(build [0-9a-f]+ goes on\r\n.*)", terminal.seen, re.S)
        assert b"watch it again: imagepool log -f " in words
        assert b"\x1b" not in words


@pytest.mark.gen_test(timeout=90)
async def test_lists_have_coloured_states_in_straight_columns(tmp_path) -> None:
    """And what others wrote cannot move the cursor."""
    async with a_pool(tmp_path, name="ada") as pool, AsyncClient(pool.url) as client:
        evil = {
            "recipe": {"commands": [{"name": "a", "text": "exit 1"}], "output": {"kind": "none"}},
            "guidance": {"note": "\x1b[2Jcleared\rover"},
        }
        await client.wait((await client.submit(evil)).id)
        await client.wait((await client.submit(recipe("print x"))).id)
        async with on_a_terminal("ls", url=pool.url, columns=200) as terminal:
            assert await terminal.ended() == 0
        head, good, bad = terminal.seen.decode().splitlines()
        assert "\x1b[32msucceeded" in good
        assert "\x1b[31mfailed" in bad
        assert bad.endswith("?[2Jcleared?over")
        plain = [COLOUR.sub(b"", line.encode()).decode() for line in (head, good, bad)]
        assert [line[plain[0].index("NODE") :][:4] for line in plain] == ["NODE", "ada ", "ada "]


EVIL = "\x1b]52;c;ZXZpbA==\x07\x9b2J\r\u202eover\x00"
TAME = "?]52;c;ZXZpbA==??2J??over?"


def test_what_a_rogue_says_does_nothing_to_the_terminal(capsys) -> None:
    """Whatever field it is in: names, reasons, errors. Colours of ours stay, and so do lines."""
    red = "\x1b[31mfailed\x1b[0m"
    refusal = Refusal("a" * 40, EVIL, EVIL)
    told = Explanation("1" * 32, State.WAITING, "", refusals=(refusal,))
    terminal.show(words.explained(told, lambda word: red))
    terminal.note(EVIL)
    Failure(PoolError(EVIL, field=EVIL, expected=EVIL), USAGE).show()
    out, err = capsys.readouterr()
    assert out.splitlines() == ["status    failed", f"  {TAME}: {TAME}"]  # no terminal, no colour
    assert err == f"{TAME}\nError: {TAME} (expected: {TAME})\n"
    assert terminal.shown(f"{red}\n{EVIL}") == f"{red}\n{TAME}"
