"""The lines of docs/builds.md about uploads, typed as they stand but for host and port."""

import asyncio
import json
import os
import re
from pathlib import Path

import pytest

from protocol.ports.service import LOCAL
from tests.programs import a_node, a_scheduler, ended, ready
from tests.streams import digest_of

pytestmark = [pytest.mark.system, pytest.mark.gen_test(timeout=60)]

DOCUMENT = (Path(__file__).parents[2] / "docs" / "builds.md").read_text()
UPLOAD, FORM = re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)[:2]


async def typed(lines: str, url: str, folder: Path) -> str:
    """What the lines print that are typed into a shell."""
    lines = lines.replace("http://localhost:8080", url).replace("curl", "curl -sS")
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-e", "-c", lines), cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await shell.communicate()
    assert shell.returncode == 0
    return printed.decode()


async def test_the_lines_about_uploads(tmp_path) -> None:
    """What is missing is uploaded; a form brings its file along."""
    (tmp_path / "disk.img").write_bytes(os.urandom(3_000_000))
    (tmp_path / "notes.txt").write_bytes(b"notes")
    digest = digest_of((tmp_path / "disk.img").read_bytes())
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as program:
        await ready(program)
        printed = await typed(UPLOAD, program.url, tmp_path)
        assert printed == f'{{"missing":["{digest}"]}}{{"sha256":"{digest}"}}'
        assert await program.service.missing(LOCAL, [digest]) == frozenset()
        build = json.loads(await typed(FORM, program.url, tmp_path))
        (file,) = build["request"]["recipe"]["inputs"]
        assert (file["name"], file["content"]["sha256"]) == (
            "texts/notes.txt",
            digest_of(b"notes"),
        )
        assert (await ended(program.service, build["id"])).state.value == "stopped"
