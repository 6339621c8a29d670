"""docs/api.md, line by line: curl alone suffices. Its lines are run in order, as they stand,
against a scheduler with a node on the dummy engine.
"""

import asyncio
import json
import os
import re
from pathlib import Path

import pytest
from msgspec import Struct

from scheduler.app import ROUTES
from tests.programs import a_node, a_scheduler, ready

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"
_CUT_SHORT = 28  # curl's exit status where its own -m ended it

documented = pytest.mark.gen_test(timeout=120)


class Line(Struct, frozen=True):
    """A line that is typed into a shell; curl's ends with what is answered."""

    text: str
    status: int = 0  # 0: it is no call
    words: str = ""  # that the answer has


def lines() -> list[Line]:
    """Those of every section whose routes are served."""
    found = []
    for section in re.split(r"^##+ ", DOCUMENT.read_text(), flags=re.MULTILINE):
        for block in re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE):
            found += [_line(text) for text in block.splitlines()]
    return found


def _line(text: str) -> Line:
    if not text.startswith("curl "):
        return Line(text)
    match = re.fullmatch(r"(curl .*\S)  # (\d{3})(?: (.*))?", text)
    assert match, f"it does not say what is answered: {text}"
    return Line(match[1], int(match[2]), match[3] or "")


async def typed(line: Line, folder: Path, variables: dict[str, str]) -> tuple[int, str, str]:
    """Status, head and body of what is answered."""
    head = folder / "head"
    more = f" -sS -D '{head}' -w '%{{stderr}}status=%{{http_code}}'" if line.status else ""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", line.text + more),
        cwd=folder,
        env={**os.environ, **variables, "NO_PROXY": "*", "HOME": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    body, said = await process.communicate()
    allowed = {0, _CUT_SHORT} if " -m " in line.text else {0}
    assert process.returncode in allowed, (line.text, said)
    if not line.status:
        return 0, "", ""
    status = int(said.decode().rpartition("status=")[2])
    return status, head.read_text("latin-1"), body.decode(errors="replace")


@documented
async def test_every_line_does_what_it_says(tmp_path):
    """Status and outcome; `$BUILD` is the build that was answered last, `$TOKEN` the token, and
    `$ADMIN` the first one.
    """
    folder = tmp_path / "shell"
    folder.mkdir()
    async with (
        a_node(tmp_path, name="anvil") as node,
        a_scheduler(tmp_path, node.url, pool_listen="127.0.0.1:0") as scheduler,
    ):
        await ready(scheduler)
        variables = {"URL": scheduler.url, "BUILD": ""}
        for line in lines():
            status, head, body = await typed(line, folder, variables)
            assert status == line.status, (line.text, head, body[:2000])
            assert line.words.lower() in (head + body).lower(), (line.text, head, body[:2000])
            if status == 201:
                made = json.loads(body)
                variables["BUILD"] = made.get("id", variables["BUILD"])
                variables["TOKEN"] = made.get("token", "")
                if "token" in made:
                    variables.setdefault("ADMIN", made["token"])


def test_every_route_is_in_the_document() -> None:
    """Each path that a scheduler serves under /api is in a line or in the words."""
    text = DOCUMENT.read_text().replace("$BUILD", "*").replace("anvil", "*").replace("NODE", "*")
    text = text.replace("tokens/ci", "tokens/*").replace("users/bob", "users/*")
    text = re.sub("[0-9a-f]{64}", "*", text)
    missing = []
    for route in ROUTES:
        path = re.sub(r"\([^()]*\)", "*", route.path)
        if (
            path.startswith("/api/v1")
            and path.replace("artifacts/*", "artifacts/image.iso") not in text
        ):
            missing.append(path)
    assert not missing
