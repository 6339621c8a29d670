"""The command line in a pipe: real processes against a pool on the dummy engine."""

import asyncio
import hashlib
import json
import os
import signal
from pathlib import Path

import pytest

from imagepool import AsyncClient
from protocol.model.build import State
from tests.chaos.local import free_port
from tests.cli.shell import Ran, imagepool, started
from tests.client.pool import a_pool, a_proxy
from tests.client.test_client import recipe

HELLO = ("build", "-c", "print hello", "--output", "none")


@pytest.mark.gen_test(timeout=90)
async def test_a_build_prints_its_log_and_nothing_else_to_standard_output(tmp_path) -> None:
    """All else goes to standard error, in plain lines."""
    async with a_pool(tmp_path) as pool:
        ran = await imagepool(*HELLO, url=pool.url)
    assert (ran.code, ran.out) == (0, "hello\n")
    first, *_, last = ran.err.splitlines()
    build_id = first.removeprefix("build ")
    assert last.startswith(f"build {build_id} succeeded after ")
    assert "\x1b" not in ran.out + ran.err
    assert "\r" not in ran.err


@pytest.mark.gen_test(timeout=90)
async def test_exit_codes_tell_kinds_of_failure_apart(tmp_path) -> None:
    """0 done, 1 the build failed, 2 usage, request or no such build, 3 nobody answers."""
    nobody = f"http://127.0.0.1:{free_port()}"
    async with a_pool(tmp_path) as pool:
        failing = await imagepool("build", "-c", "exit 3", "--output", "none", url=pool.url)
        missing = await imagepool("show", "ff", url=pool.url)
        image = await imagepool("build", "--image", "no image!", url=pool.url)
    unknown = await imagepool("build", "--colour", "red", url=nobody)
    nothing = await imagepool("build", url=nobody)
    away = await imagepool("ls", url=nobody)
    assert [ran.code for ran in (failing, missing, image, unknown, nothing, away)] == [
        *(1, 2, 2, 2, 2, 3)
    ]
    assert "failed" in failing.err
    assert "no build 'ff'" in missing.err
    assert "recipe.base.name" in image.err
    assert "--colour" in unknown.err
    assert nothing.err.startswith("Error: file: there is nothing to build (expected: FILE")
    assert away.err.startswith(f"Error: {nobody} cannot be reached")
    assert not away.out


@pytest.mark.gen_test(timeout=90)
async def test_errors_are_json_where_output_is() -> None:
    """With the field, what was expected, and the exit code."""
    ran = await imagepool("build", "--priority", "5000", "-c", "x", "--json", url="http://x")
    assert ran.code == 2
    assert json.loads(ran.err) == {
        "error": "priority: Expected `int` <= 1000",
        "kind": "Invalid",
        "field": "priority",
        "expected": "`int` <= 1000",
        "exit": 2,
    }


@pytest.mark.gen_test(timeout=90)
async def test_everything_a_build_is_asked_with_arrives(tmp_path) -> None:
    """A file and flags together; the request that the pool has is what they say."""
    (tmp_path / "order.yaml").write_text(
        "recipe:\n  commands:\n    - {name: first, text: 'print 1'}\n  keep_going: true\n"
        "guidance: {labels: {team: web}, needs: {cpus: 2}}\n"
    )
    (tmp_path / "second.sh").write_text("print 2\n")
    (tmp_path / "token").write_text("hush")
    (tmp_path / "app.conf").write_text("a = 1\n")
    async with a_pool(tmp_path) as pool:
        ran = await imagepool(
            *("build", "order.yaml", "--image", "debian:12", "-c", "@second.sh"),
            *("--input", "etc/app.conf=app.conf", "--output", "outbox=all.zip"),
            *("--needs", "memory=1.5G", "--needs", "network=no", "--priority", "7"),
            *("--secret", "token=@token", "--secret", "OTHER", "--label", "stage=test"),
            *("--note", "hello there", "--idempotency-key", "k1", "--detach", "--json"),
            url=pool.url,
            cwd=tmp_path,
            environment={"OTHER": "hush too"},
        )
        assert ran.code == 0, ran.err
        told = ran.json["request"]
    got, guidance = told["recipe"], told["guidance"]
    assert [command["name"] for command in got["commands"]] == ["first", "second.sh"]
    assert got["base"]["name"] == "debian:12"
    assert got["keep_going"] is True
    assert got["output"] == {"kind": "outbox", "name": "all.zip"}
    (file,) = got["inputs"]
    assert (file["name"], file["content"]["text"]) == ("etc/app.conf", "a = 1\n")
    assert (guidance["needs"]["cpus"], guidance["needs"]["memory"]) == (2.0, 3 << 29)
    assert guidance["needs"]["network"] is False
    assert guidance["labels"] == {"team": "web", "stage": "test"}
    assert (guidance["priority"], guidance["note"]) == (7, "hello there")
    assert told["secrets"] == ["OTHER", "token"]
    assert "hush" not in ran.out
    assert ran.json["key"] == "k1"


@pytest.mark.gen_test(timeout=90)
@pytest.mark.parametrize("kind", ["json", "toml", "yaml"])
async def test_a_file_may_be_json_toml_or_yaml(tmp_path, kind) -> None:
    """Also on standard input, where --format says what it is; both APIs' forms."""
    texts = {
        "json": '{"recipe": {"output": {"kind": "none"},'
        ' "commands": [{"name": "a", "text": "print hello"}]}}',
        "toml": '[recipe]\noutput = {kind = "none"}\n'
        '[[recipe.commands]]\nname = "a"\ntext = "print hello"\n',
        "yaml": "commands:\n- name: a\n  command: print hello\n  arguments: []\n",
    }
    async with a_pool(tmp_path) as pool:
        given = texts[kind].encode()
        ran = await imagepool("build", "-", "--format", kind, url=pool.url, stdin=given)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("hello\n")


@pytest.mark.gen_test(timeout=90)
@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "a.json",
            '{"recipe": {"commands": [{"text": "x"}]}}',
            "recipe.commands[0].name is missing",
        ),
        ("a.toml", '[recipe]\ncommands = "x"\n', "recipe.commands: Expected `array`"),
        ("a.yaml", "recipe: {keep_going: perhaps}", "recipe.keep_going: Expected `bool`"),
        ("a.yml", "recipe: {base: {kind: moon}}", "recipe.base.kind"),
        ("a.yaml", "a: [", "a.yaml: while parsing"),
        ("a.yaml", "!!python/object/apply:os.system ['true']", "a.yaml: could not determine"),
        ("a.yaml", "- 1", "holds no map"),
        ("a.toml", "a = ", "a.toml: Invalid value"),
        ("a.json", '{"a": 1,\n "b" 2}', "a.json: Expecting ':' delimiter: line 2 column 6"),
        ("a.json", '{"a": NaN}', "a.json: the body is not JSON"),
        ("a.json", "[]", "a.json holds no map"),
        ("a.txt", "{}", "a name that ends in .json"),
        ("none.json", None, "none.json: No such file"),
    ],
)
async def test_a_files_mistake_is_shown_with_file_and_field(tmp_path, name, text, words) -> None:
    """Before anything is sent; exit code 2."""
    if text is not None:
        (tmp_path / name).write_text(text)
    ran = await imagepool("build", name, url="http://127.0.0.1:1", cwd=tmp_path)
    assert ran.code == 2
    assert words in ran.err
    assert name in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.gen_test(timeout=120)
async def test_what_the_image_creator_api_takes_comes_out_of_log_show_ls_and_explain(
    tmp_path,
) -> None:
    """Each in words and in JSON."""
    async with a_pool(tmp_path) as pool, AsyncClient(pool.url, owner="ann") as client:
        order = {
            "recipe": {
                "commands": [{"name": "one", "text": "print 1"}],
                "output": {"kind": "none"},
            },
            "guidance": {"labels": {"team": "web"}, "note": "nightly"},
        }
        build = await client.wait((await client.submit(order)).id)
        other = await client.wait((await client.submit(recipe("exit 1"))).id)

        async def ask(*words: str) -> Ran:
            ran = await imagepool(*words, url=pool.url)
            assert ran.code == 0, ran.err
            return ran

        assert (await ask("log", build.id)).out == "1\n"
        assert (await ask("log", build.id, "--command", "1", "--json")).lines == [{"line": "1"}]
        shown = (await ask("show", build.id)).out
        for words in ("status    stopped", "result    succeeded", "note      nightly", "team=web"):
            assert words in shown
        assert "command 1 one: stopped, exit code 0" in shown
        assert (await ask("show", build.id, "--json")).json["owner"] == "ann"
        assert "accepted" in (await ask("explain", build.id)).out
        explained = (await ask("explain", build.id, "--json")).json
        assert explained["history"][0]["event"] == "accepted"
        listed = (await ask("ls")).out.splitlines()
        assert [line.split()[0] for line in listed] == ["ID", other.id, build.id]
        for filters in (
            ("--result", "succeeded"),
            ("--label", "team=web", "--owner", "ann"),
            ("--label", "team"),
            ("--status", "stopped", "--node", build.node.name, "--result", "succeeded"),
        ):
            found = (await ask("ls", "--json", *filters)).json["builds"]
            assert [each["id"] for each in found] == [build.id]
        assert len((await ask("ls", "--json", "--limit", "1")).json["builds"]) == 1
        assert (await ask("ls", "--json", "--status", "running")).json == {"builds": []}
        bad = await imagepool("ls", "--label", "a b=c", url=pool.url)
        assert (bad.code, "label" in bad.err) == (2, True)


@pytest.mark.gen_test(timeout=90)
async def test_a_build_is_downloaded_and_listed_with_its_digest(tmp_path) -> None:
    """`build -o`, and `download` to a file, a folder, standard output."""
    async with a_pool(tmp_path) as pool:
        ran = await imagepool(
            *("build", "-c", "artifact 5000", "-o", "a.iso", "--json"), url=pool.url, cwd=tmp_path
        )
        assert ran.code == 0, ran.err
        (artifact,) = ran.json["artifacts"]
        build_id, digest = ran.json["id"], artifact["sha256"]
        saved = await imagepool("download", build_id, url=pool.url, cwd=tmp_path)
        assert saved.out == f"{digest}  {build_id}.iso\n"
        (tmp_path / "folder").mkdir()
        told = await imagepool(
            *("download", build_id, "-o", "folder", "--json"), url=pool.url, cwd=tmp_path
        )
        assert told.json == {
            "file": f"folder/{artifact['name']}",
            "name": artifact["name"],
            "size": 5000,
            "sha256": digest,
        }
        async with started("download", build_id, "-o", "-", url=pool.url) as process:
            streamed, _ = await process.communicate()
        contents = [
            (tmp_path / "a.iso").read_bytes(),
            (tmp_path / f"{build_id}.iso").read_bytes(),
            (tmp_path / "folder" / artifact["name"]).read_bytes(),
            streamed,
        ]
        assert {hashlib.sha256(content).hexdigest() for content in contents} == {digest}
        none = await imagepool("download", build_id, "--name", "x.zip", url=pool.url)
        assert (none.code, "no artifact 'x.zip'" in none.err) == (2, True)


@pytest.mark.gen_test(timeout=90)
async def test_a_followed_log_survives_cuts_byte_for_byte(tmp_path) -> None:
    """`log -f` in a process of its own, while the network fails."""
    size = 6_000_000
    async with a_pool(tmp_path) as pool, a_proxy(pool) as proxy, AsyncClient(pool.url) as client:
        build = await client.submit(recipe(f"bytes {size}\nsleep 0.5\nbytes {size}"))
        got = bytearray()
        async with started("log", "-f", build.id, url=proxy.url) as process:
            assert process.stdout is not None
            cuts = 0
            while piece := await process.stdout.read(1 << 16):
                got += piece
                if len(got) > (cuts + 1) * size // 2 and cuts < 3:
                    cuts += 1
                    await proxy.cut()
            assert await process.wait() == 0
        whole = b"".join([piece.data async for piece in client.log(build.id)])
        assert cuts == 3
        assert bytes(got) == whole


@pytest.mark.gen_test(timeout=90)
async def test_ctrl_c_ends_the_watching_and_not_the_build(tmp_path) -> None:
    """It says that the build goes on and how to go back to it; exit code 130."""
    async with a_pool(tmp_path) as pool, AsyncClient(pool.url) as client:
        command = ("build", "-c", "print hello\nhang", "--output", "none")
        async with started(*command, url=pool.url) as process:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"hello\n"
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
            assert process.returncode == 130
        (build,) = [build async for build in client.builds()]
        assert build.state is State.RUNNING
        said = err.decode().splitlines()
        assert f"build {build.id} goes on" in said
        assert f"watch it again: imagepool log -f {build.id}" in said
        ran = await imagepool("cancel", build.id, url=pool.url)
        assert ran.out.startswith(f"build {build.id} ")
        ended = await client.wait(build.id)
        again = await imagepool("cancel", build.id, "--json", url=pool.url)
        assert (again.code, again.json["result"]) == (0, "cancelled")
        assert again.json["revision"] == ended.revision


@pytest.mark.gen_test(timeout=90)
async def test_who_reads_may_go_away(tmp_path) -> None:
    """`imagepool log ID | head`: no complaint, and the exit code of a broken pipe."""
    async with a_pool(tmp_path) as pool, AsyncClient(pool.url) as client:
        build = await client.wait((await client.submit(recipe("bytes 3000000"))).id)
        reader, writer = os.pipe()
        async with started("log", build.id, url=pool.url, stdout=writer) as process:
            os.close(writer)
            os.close(reader)
            _, err = await process.communicate()
            assert (process.returncode, err) == (141, b"")


@pytest.mark.gen_test(timeout=90)
async def test_json_is_one_document_or_one_in_each_line(tmp_path) -> None:
    """`build --json` prints the build; with --watch each event as it happens."""
    async with a_pool(tmp_path) as pool:
        one = await imagepool(*HELLO, "--json", url=pool.url)
        assert (one.code, one.json["result"]) == (0, "succeeded")
        events = (await imagepool(*HELLO, "--json", "--watch", url=pool.url)).lines
        log = "".join(event["text"] for event in events if event["event"] == "log")
        assert log == "hello\n"
        assert events[-1]["build"]["result"] == "succeeded"
        silent = await imagepool(*HELLO, "--no-watch", url=pool.url)
        assert (silent.code, silent.out) == (0, "")
        assert "succeeded" in silent.err
        for command in ("ls", "nodes", "status"):
            assert isinstance((await imagepool(command, "--json", url=pool.url)).json, dict)


@pytest.mark.gen_test(timeout=90)
async def test_nodes_are_cordoned_uncordoned_and_drained(tmp_path) -> None:
    """By name; drain says 1 where the time was over before the node was empty."""
    async with a_pool(tmp_path, name="ada") as pool, AsyncClient(pool.url) as client:

        async def state(*words: str) -> str:
            ran = await imagepool(*words, "ada", "--json", url=pool.url)
            assert ran.code == 0, ran.err
            return str(ran.json["state"])

        assert await state("cordon", "--reason", "new fan") == "cordoned"
        listed = (await imagepool("nodes", url=pool.url)).out
        assert "new fan" in listed.splitlines()[1]
        assert await state("uncordon") == "ready"
        build = await client.submit(recipe("print x\nhang"))
        async for _ in client.log(build.id, follow=True):
            break
        over = await imagepool("drain", "ada", "--timeout", "0.2", url=pool.url)
        assert (over.code, over.out) == (1, "")
        said, stays = over.err.splitlines()
        assert said == "ada still has 1 build"
        assert stays.startswith("0.2 s are over; ada stays cordoned, and is drained when")
        assert (await client.node("ada")).state == "cordoned"
        draining = asyncio.create_task(imagepool("drain", "ada", "--json", url=pool.url))
        await client.cancel(build.id)
        drained = await draining
        assert (drained.code, drained.json["state"]) == (0, "drained")
        again = await imagepool("drain", "ada", url=pool.url)
        assert (again.code, again.out) == (0, "ada is drained: nothing is on it\n")
        missing = await imagepool("cordon", "bob", url=pool.url)
        assert (missing.code, "bob" in missing.err) == (2, True)
        assert ": busy, 0 of 0 slots used: none" in (await imagepool("status", url=pool.url)).out


@pytest.mark.gen_test(timeout=90)
async def test_a_drain_ends_where_the_node_is_uncordoned(tmp_path) -> None:
    """It would be waited for without end."""
    async with a_pool(tmp_path, name="ada") as pool, AsyncClient(pool.url) as client:
        build = await client.submit(recipe("print x\nhang"))
        async for _ in client.log(build.id, follow=True):
            break
        async with started("drain", "ada", url=pool.url) as process:
            assert process.stderr is not None
            assert await process.stderr.readline() == b"ada still has 1 build\n"
            await client.uncordon("ada")
            _, err = await process.communicate()
        assert (process.returncode, b"was uncordoned meanwhile" in err) == (1, True)
        await client.cancel(build.id)


@pytest.mark.gen_test(timeout=60)
async def test_a_place_that_cannot_be_written_is_named(tmp_path) -> None:
    """Before anything is built, where that can be seen; never with a traceback."""
    nobody = "http://127.0.0.1:1"
    (tmp_path / "file").write_text("")
    for flags, words in (
        (("-o", "none/x.iso"), "there is no folder none"),
        (("-o", "file/"), "file: File exists"),
        (("-o", "x.iso", "--detach"), "--detach does not wait"),
    ):
        ran = await imagepool("build", "-c", "x", *flags, url=nobody, cwd=tmp_path)
        assert (ran.code, words in ran.err) == (2, True)
    async with a_pool(tmp_path) as pool, AsyncClient(pool.url) as client:
        build = await client.wait((await client.submit(recipe("artifact 9", output=True))).id)
        ran = await imagepool("download", build.id, "-o", "none/x", url=pool.url, cwd=tmp_path)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith("Error: output: there is no folder none (expected: a file in")


@pytest.mark.gen_test(timeout=90)
async def test_several_artifacts_go_into_a_folder(tmp_path) -> None:
    """It is made before anything is built; as one file they are not saved, and it is said how."""
    made = ("build", "-c", "file /a.txt 3\nfile /b.txt 4", "--output", "paths=/*.txt")
    async with a_pool(tmp_path) as pool:
        built = await imagepool(*made, "-o", "new/deep/", "--json", url=pool.url, cwd=tmp_path)
        assert built.code == 0, built.err
        names = [artifact["name"] for artifact in built.json["artifacts"]]
        assert [path.name for path in sorted((tmp_path / "new" / "deep").iterdir())] == names
        one = await imagepool(*made, "-o", "one", url=pool.url, cwd=tmp_path)
        assert (one.code, (tmp_path / "one").exists()) == (2, False)
        assert f"the build made 2 artifacts: {', '.join(names)} (expected: a folder" in one.err
        build_id = built.json["id"]
        all_of_it = await imagepool(
            *("download", build_id, "-o", "other/", "--json"), url=pool.url, cwd=tmp_path
        )
        assert [line["file"] for line in all_of_it.lines] == [f"other/{name}" for name in names]
        named = await imagepool(
            *("download", build_id, "-o", "just", "--name", names[1]), url=pool.url, cwd=tmp_path
        )
        assert (named.code, named.out.split()[1]) == (0, "just")
        none = await imagepool("download", build_id, "-o", "x/", "--name", "z.zip", url=pool.url)
        assert (none.code, "no artifact 'z.zip'" in none.err) == (2, True)
        dry = await imagepool(*made, "-o", "dry/", "--dry-run", url=pool.url, cwd=tmp_path)
        assert (dry.code, (tmp_path / "dry").exists()) == (0, False)


@pytest.mark.gen_test(timeout=30)
async def test_url_wins_over_the_variable(tmp_path: Path) -> None:
    """--url, then IMAGEPOOL_URL."""
    nobody, other = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    assert nobody in (await imagepool("ls", url=nobody)).err
    assert other in (await imagepool("ls", "--url", other, url=nobody)).err
