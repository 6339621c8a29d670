"""Builds that go wrong or are odd, on the real engine and through the API: each ends stopped,
tells the user what happened, and its output is complete.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from protocol.model.build import Position, State
from protocol.ports.service import LOCAL
from tests.programs import Program, a_client, a_node, until
from tests.system.engine import ISO, File, make_image, remove_everything, shell_tree

pytestmark = [pytest.mark.system, pytest.mark.gen_test(timeout=120)]

SCRIPT = "#!/bin/sh\n"


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, str]]:
    """Images of a few files."""
    without_iso = {
        path: file for path, file in shell_tree().items() if not path.startswith("toiso")
    }
    try:
        yield {
            "plain": make_image(shell_tree()),
            "no iso": make_image(without_iso),
            "entrypoint": make_image(shell_tree(), 'ENTRYPOINT ["/bin/false", "--odd"]', "CMD x"),
            "user": make_image(shell_tree(), "USER nobody"),
            "no shell": make_image({"etc/motd": File(b"hello")}),
        }
    finally:
        remove_everything()


async def build(node: Program, image: str, *scripts: str) -> tuple[dict[str, Any], bytes]:
    """(the documented status, the whole log) of a build of these scripts by the image-creator
    API.
    """
    import aiohttp

    commands = [
        {"name": f"command {i}", "command": text, "arguments": []} for i, text in enumerate(scripts)
    ]
    document = {"redirect": "http://localhost/", "image": image, "commands": commands}
    async with aiohttp.ClientSession() as session, a_client(node.url) as client:
        async with session.post(
            node.url + "/create", data=json.dumps(document), allow_redirects=False
        ) as created:
            assert created.status == 303
            identity = (await created.json())["id"]
        await until(client, identity, lambda build: build.state is State.STOPPED, 100)
        async with session.get(f"{node.url}/status/{identity}") as answer:
            status = await answer.json()
        opened = await client.open_log(LOCAL, identity, Position())
        return status, b"".join([piece async for piece in opened.stream])


NEXT = SCRIPT + "echo the next one ran\n"

CASES = [
    ("plain", "printf 'a\\377\\376b\\n'", 0, "a\ufffd\ufffdb\n"),
    ("plain", "echo out; echo err >&2; exit 3", 3, "out\nerr\n"),
    ("plain", "echo one; echo two > /dev/stderr; echo three > /dev/stdout", 0, "one\ntwo\nthree\n"),
    ("plain", "sleep 1000 & echo left one behind", 0, "left one behind\n"),
    ("plain", "kill -9 $$", 137, "Killed\n"),
    ("entrypoint", "echo fine", 0, "fine\n"),
    ("user", "id -u; echo x > /toiso/mine", 0, "0\n"),
]


@pytest.mark.parametrize(("image", "lines", "code", "output"), CASES)
async def test_a_command_and_the_one_after_it(tmp_path, images, image, lines, code, output) -> None:
    """Not UTF-8; failing; opening /dev/stderr itself; leaving a process behind; killed; an image
    with an ENTRYPOINT, with a USER: its output and exit code are there, the next command runs,
    the image is found.
    """
    async with a_node(tmp_path, engine="docker") as node:
        status, log = await build(node, images[image], f"{SCRIPT}{lines}\n", NEXT)
        first, second, found = status["commands"]
        assert (first["exitcode"], first["output"]) == (code, output)
        assert (second["exitcode"], second["output"]) == (0, "the next one ran\n")
        assert found["exitcode"] == 0
        assert str(len(ISO)) in found["output"]
        assert "download" in status
        assert status["result"] == ("failed" if code else "succeeded")
        assert log.count(b"the next one ran\n") == 1


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("echo no interpreter\n", 126, "#! line"),
        ("#!/bin/bash\necho x\n", 127, "/bin/bash"),
        ("#!/bin/sh\r\necho x\r\n", 127, "carriage return"),
        ("#!/etc/passwd\n", 126, "/etc/passwd"),
    ],
)
async def test_a_command_that_cannot_be_executed(tmp_path, images, text, code, words) -> None:
    """Its output says why, in words."""
    async with a_node(tmp_path, engine="docker") as node:
        status, _ = await build(node, images["plain"], text, NEXT)
        assert status["commands"][0]["exitcode"] == code
        assert words in status["commands"][0]["output"]
        assert status["commands"][1]["exitcode"] == 0


async def test_a_command_that_prints_300_mb(tmp_path, images) -> None:
    """The status has the last MiB and says where the whole is; the whole log has every byte."""
    size = 300 << 20
    line = b"0123456789abcde\n"
    lines = f"yes 0123456789abcde | head -c {size}; echo the end\n"
    async with a_node(tmp_path, engine="docker") as node:
        status, log = await build(node, images["plain"], SCRIPT + lines)
        output = status["commands"][0]["output"]
        assert output.startswith(f"[imagepool: the last 1048576 of {size + 8} bytes")
        assert output.endswith("the end\n")
        whole = hashlib.sha256(line * (size // len(line)) + b"the end\n")
        assert hashlib.sha256(log[: size + 8]).hexdigest() == whole.hexdigest()


@pytest.mark.parametrize(
    ("image", "text", "words"),
    [
        ("no iso", NEXT, "/toiso/iso_path.sh"),
        ("no shell", "#!/bin/sh\necho x\n", "/bin/sh"),
        ("plain", SCRIPT + "rm /toiso/image.iso\n", "no such file"),
        ("plain", SCRIPT + "echo '#!/bin/sh\nexit 4' > /toiso/iso_path.sh\n", "ended with 4"),
    ],
)
async def test_an_image_without_a_result(tmp_path, images, image, text, words) -> None:
    """No /toiso/iso_path.sh, no shell, a path that leads nowhere: stopped, failed, no download,
    and the reason.
    """
    async with a_node(tmp_path, engine="docker") as node:
        status, _ = await build(node, images[image], text)
        assert (status["status"], status["result"]) == ("stopped", "failed")
        assert "download" not in status
        assert any(words in command["output"] for command in status["commands"])
        assert status["reason"]


async def test_an_image_that_is_nowhere(tmp_path) -> None:
    """The build fails or is given up, and says which image; no registry is needed to hear it."""
    async with a_node(tmp_path, engine="docker") as node:
        status, _ = await build(node, "localhost:1/no/such:image", NEXT)
        assert status["status"] == "stopped"
        assert status["result"] in ("failed", "lost")
        assert "localhost:1/no/such:image" in status["reason"]
        assert status["commands"][0]["exitcode"] == 125
        assert status["commands"][0]["output"]


async def test_a_build_that_takes_too_long(tmp_path, images) -> None:
    """Ended with the time limit as its reason; what it printed is kept."""
    async with a_node(tmp_path, engine="docker", time_limit=2) as node:
        status, _ = await build(node, images["plain"], SCRIPT + "echo begun\nexec sleep 100\n")
        assert status["result"] == "timed_out"
        assert status["commands"][0]["output"].startswith("begun\n")
        assert status["commands"][0]["exitcode"] == 137
        assert "2 s" in status["reason"]
