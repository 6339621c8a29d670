"""The API does as its document says: schemathesis reads the document from a live node and a live
scheduler, and asks for everything in it, rightly and wrongly.

What it does not check, and why, is in schemathesis.toml beside this file.
"""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from protocol.model.recipe import IsoOutput
from protocol.ports.service import LOCAL, Role
from tests.programs import a_node, a_scheduler, ended, ready, request

HERE = Path(__file__).parent
EXAMPLES = 10
"""Cases for each operation, beside those that cover each field's bounds."""

conformance = pytest.mark.gen_test(timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("served", "less"),
    # A create takes half of the time, and is checked by the same code.
    [("node", ()), ("scheduler", ("--exclude-name=POST /api/v1/builds",))],
    ids=["node", "scheduler"],
)
@conformance
async def test_the_api_does_as_its_document_says(tmp_path, served, less):
    """No 500; no status, media type or body that the document does not know; what it forbids is
    refused, what it allows is done, and nothing without the token where it asks for one.
    """
    # Wrong tokens are tried on purpose, and often.
    short = {"wait_limit": 0.05, "failure_limit": 1_000_000}
    async with (
        a_node(tmp_path, name="anvil", slots=4, **short) as node,
        a_scheduler(tmp_path, node.url, **short) as scheduler,
    ):
        await ready(scheduler)
        wanted = request("print a", output=IsoOutput())
        program = node if served == "node" else scheduler
        build = await ended(program.service, (await program.service.submit(LOCAL, wanted)).id)
        token, _ = await program.parts.people.accounts.make_token("tester", Role.ADMIN)
        known = (f"--header=Authorization: Bearer {token}", *less)
        code, said = await schemathesis(program.url, build.id, tmp_path, known)
    assert code == 0, said
    assert "Tested:" in said


async def schemathesis(
    url: str, build_id: str, folder: Path, more: tuple[str, ...]
) -> tuple[int, str]:
    """How its run ended, and what it said; `more`: further arguments."""
    arguments = [
        *(f"--config-file={HERE / 'schemathesis.toml'}", "run", f"{url}/api/v1/openapi.json"),
        *("--phases=coverage,fuzzing", f"--max-examples={EXAMPLES}", "--seed=1"),
        *("--generation-database=none", "--no-shrink", "--continue-on-failure", "--no-color"),
        *more,
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE.parents[1]),
        "SCHEMATHESIS_HOOKS": "tests.api.loopback_hooks",
        "KNOWN_BUILD": build_id,
        "NO_PROXY": "*",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", *arguments),
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, said.decode(errors="replace")
