"""`make demo`: a scheduler and two nodes on this machine find each other by mDNS and build a live
ISO that boots.

Everything it starts it stops. The ISO stays in `out/`; when it boots it says, on the serial
console, which build on which node made it, and a word that was drawn for this run.
"""

import asyncio
import contextlib
import json
import secrets
import shlex
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

from imagepool.cli import terminal, words
from imagepool.cli.watch import watch
from imagepool.client import AsyncClient
from protocol.errors import PoolError
from protocol.model.build import Result
from protocol.model.messages import Roster
from protocol.model.recipe import Command, Recipe
from protocol.model.request import BuildRequest

OUT = Path("out")
_START = 60.0  # seconds that a program may take to serve
_FIND = 20.0  # seconds that the nodes may take to be found
_WORDS = (
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "islet",
    "juniper",
)

SAY = """#!/bin/bash
# Whoever boots the image reads this on the serial console.
set -eu
cat >/usr/local/sbin/imagepool-demo <<END
#!/bin/sh
echo {line} >/dev/ttyS0
END
chmod +x /usr/local/sbin/imagepool-demo
cat >/etc/systemd/system/imagepool-demo.service <<'END'
[Unit]
Description=Say which build this is
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/imagepool-demo
END
mkdir -p /etc/systemd/system/multi-user.target.wants
ln -sf ../imagepool-demo.service /etc/systemd/system/multi-user.target.wants/
echo "the image will say: {line}"
"""


def demo_request(word: str) -> BuildRequest:
    """Two commands: one that leaves its mark in the image, one that makes the ISO."""
    line = f"imagepool demo: build $IMAGEPOOL_BUILD on node $IMAGEPOOL_NODE, {word}"
    say = Command("leave a mark in the image", text=SAY.format(line=line))
    iso = Command("build iso", text="#!/bin/bash\n/toiso/command.sh -q\n")
    return BuildRequest(Recipe((say, iso)))


async def demo() -> int:
    """The demonstration; its exit code."""
    began = time.monotonic()
    word = f"{secrets.choice(_WORDS)}-{secrets.token_hex(3)}"
    async with contextlib.AsyncExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="imagepool-demo-")))
        pool = f"demo-{secrets.token_hex(4)}"
        scheduler = await ending.enter_async_context(program(folder, pool, "scheduler", "demo"))
        for name, priority in (("ada", 10), ("grace", 20)):
            await ending.enter_async_context(
                program(folder, pool, "node", name, "--priority", str(priority))
            )
        client = await ending.enter_async_context(AsyncClient(scheduler))
        print(words.node_table(await two_nodes(client)), flush=True)
        print(f"\nthe roster, live: {scheduler}/\n", flush=True)
        return await build(client, word, began)


async def build(client: AsyncClient, word: str, began: float) -> int:
    """Build through the scheduler's one URL, watch, download, check."""
    accepted = await client.submit(demo_request(word))
    print(f"build {accepted.id}; its log:\n", flush=True)
    ended = await watch(client, accepted.id)
    if ended.result is not Result.SUCCEEDED or ended.node is None:
        return 1
    OUT.mkdir(exist_ok=True)
    for old in OUT.glob("*.iso"):
        old.unlink()
    target = OUT / "imagepool-demo.iso"
    (artifact,) = ended.artifacts
    with terminal.progress(target.name) as told:
        await client.download(ended.id, target, progress=told)
    line = f"imagepool demo: build {ended.id} on node {ended.node.name}, {word}"
    facts = {"line": line, "sha256": artifact.sha256, "iso": str(target)}
    (OUT / "imagepool-demo.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(_closing(target, artifact.sha256, artifact.size, line, time.monotonic() - began))
    return 0


def _closing(target: Path, digest: str, size: int, line: str, seconds: float) -> str:
    quoted = shlex.quote(str(target))
    return f"""
{target}, {words.size(size)}, after {seconds:.0f} s; its digest is right: sha256 {digest}

To boot it (apt-get install qemu-system-x86 ovmf), by BIOS and by UEFI:

  qemu-system-x86_64 -m 1024 -nographic -cdrom {quoted}
  qemu-system-x86_64 -m 1024 -nographic -bios /usr/share/ovmf/OVMF.fd -cdrom {quoted}

or write it to a USB stick. On the serial console it says

  {line}
"""


@contextlib.asynccontextmanager
async def program(folder: Path, pool: str, kind: str, name: str, *flags: str) -> AsyncIterator[str]:
    """A program of the pool while the context lasts; its URL."""
    data = folder / f"{kind}-{name}"
    log = folder / f"{kind}-{name}.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "imagepool", kind, "--listen", "127.0.0.1:0"),
            *("--data", str(data), "--name", name, "--pool", pool, *flags),
            stdout=PIPE,
            stderr=errors,
        )
    try:
        yield await _ready(process, kind, log)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _ready(process: Process, kind: str, log: Path) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(_START):
        line = (await process.stdout.readline()).decode().split()
    if line[:1] != ["ready"]:
        raise SystemExit(f"the {kind} did not start:\n{log.read_text()[-2000:]}")
    return line[1]


async def two_nodes(client: AsyncClient) -> Roster:
    """The roster when both nodes are ready."""
    async with asyncio.timeout(_FIND):
        while True:
            status = await client.status()
            roster = await client.nodes()
            if sum(node.state == "ready" for node in roster.nodes) == 2:
                return roster
            await client.status(after=status.token, wait=1)


def main() -> int:
    """For `python -m imagepool.demo`."""
    try:
        return asyncio.run(demo())
    except (PoolError, TimeoutError) as error:
        print(f"the demo failed: {error or 'no answer in time'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
