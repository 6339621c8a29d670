"""`up`, `scheduler` and `node`: the programs, with settings from a file, the environment and
flags, in that order.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from imagepool.cli.exits import USAGE, Failure
from protocol.errors import PoolError

Option = Callable[[Callable[..., Any]], Callable[..., Any]]

_COMMON: tuple[Option, ...] = (
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="TOML file with settings.",
    ),
    click.option("--listen", metavar="HOST:PORT", help="Where to serve; port 0 picks one."),
    click.option(
        "--pool-listen",
        metavar="HOST:PORT",
        help="Where to serve members of the pool; else one port higher.",
    ),
    click.option(
        "--anonymous",
        type=click.Choice(["none", "viewer", "user"]),
        help="What somebody without a token may be.",
    ),
    click.option(
        "--data", metavar="FOLDER", help="Folder for what must be kept; one program each."
    ),
    click.option(
        "--name", metavar="TEXT", help="How people call it; else the machine's host name."
    ),
    click.option("--pool", metavar="TEXT", help="Programs of other pools are passed over."),
    click.option(
        "--no-mdns", "mdns", flag_value=False, default=None, help="Neither find nor be found."
    ),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="What is logged: this and worse.",
    ),
    click.option("--log-format", type=click.Choice(["text", "json"]), help="json: for machines."),
)
_NODE: tuple[Option, ...] = (
    click.option(
        "--join", metavar="TOKEN", help="Join the pool that this token is of (imagepool invite)."
    ),
    click.option(
        "--engine", type=click.Choice(["docker", "dummy"]), help="What runs the commands."
    ),
    click.option("--slots", type=int, metavar="N", help="Builds at the same time."),
    click.option("--priority", type=int, metavar="N", help="Higher is favoured."),
)
_SCHEDULERS = click.option(
    "--scheduler",
    "schedulers",
    multiple=True,
    metavar="URL",
    help="A scheduler that mDNS does not reach; may be given several times.",
)
_NODES = click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="URL",
    help="A node that mDNS does not reach; may be given several times.",
)
_PLAIN_NODES = click.option(
    "--plain-node",
    "plain_nodes",
    multiple=True,
    metavar="URL",
    help="A server that speaks the documented image-creator API only; may be given several times.",
)
FLAGS: dict[str, tuple[Option, ...]] = {
    "node": (*_COMMON, *_NODE, _SCHEDULERS),
    "scheduler": (*_COMMON, _NODES, _PLAIN_NODES),
}
"""The settings of each program that have a flag."""


def options(*groups: tuple[Option, ...]) -> Option:
    """A decorator: the command has these options, in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate


@click.command(
    epilog="""\b
Examples:
  imagepool node
  imagepool node --listen 192.0.2.7:8090 --priority 10 --slots 4
  imagepool node --scheduler http://192.0.2.1:8080"""
)
@options(FLAGS["node"])
def node(config: Path | None, **flags: Any) -> None:
    """Run a node: it builds images in containers, and joins the pools of schedulers that find
    it.
    """
    from node import app
    from node.config import NodeSettings
    from protocol.program.running import announce_ready

    settings = _settings(NodeSettings, "node", config, flags)
    _run(lambda stop: app.run(settings, announce_ready, stop))


@click.command(
    epilog="""\b
Examples:
  imagepool scheduler
  imagepool scheduler --listen 192.0.2.1:8080 --node http://192.0.2.7:8090
  imagepool scheduler --config scheduler.toml --log-format json"""
)
@options(FLAGS["scheduler"])
def scheduler(config: Path | None, **flags: Any) -> None:
    """Run a scheduler: the one URL of a pool. It finds nodes by mDNS, and serves the roster page
    at /.
    """
    from protocol.program.running import announce_ready
    from scheduler import app
    from scheduler.config import SchedulerSettings

    settings = _settings(SchedulerSettings, "scheduler", config, flags)
    _run(lambda stop: app.run(settings, announce_ready, stop))


@click.command(
    epilog="""\b
Examples:
  imagepool up
  imagepool up --listen 127.0.0.1:8080 --slots 2
  imagepool up --engine dummy --no-mdns"""
)
@options(_COMMON, _NODE)
def up(config: Path | None, **flags: Any) -> None:
    """Run a scheduler and one node on this machine. --listen is the scheduler's address."""
    from node.config import NodeSettings
    from protocol.program.settings import data_folder, host_and_port
    from scheduler.config import SchedulerSettings

    node_flags = {name: flags.pop(name) for name in ("engine", "slots", "priority")}
    settings = _settings(SchedulerSettings, "scheduler", config, flags)
    host, _ = host_and_port(settings.listen)
    folder = data_folder(settings, "up")
    shared = {name: flags[name] for name in ("name", "pool", "mdns", "log_level", "log_format")}
    listen = "[::1]:0" if ":" in host else "127.0.0.1:0"  # only our own scheduler calls it
    own = {"listen": listen, "data": str(folder / "node")}
    node_settings = _settings(NodeSettings, "node", config, node_flags | shared | own)
    settings = _settings(
        SchedulerSettings, "scheduler", config, flags | {"data": str(folder / "scheduler")}
    )
    _run(lambda stop: _both(settings, node_settings, stop))


async def _both(settings: Any, node_settings: Any, stop: asyncio.Event) -> None:
    """The node first, so that the scheduler knows its URL; the end of either is the end of both."""
    from msgspec.structs import replace

    from node import app as node_app
    from protocol.program.running import announce_ready
    from scheduler import app as scheduler_app

    loop = asyncio.get_running_loop()
    node_ready: asyncio.Future[str] = loop.create_future()
    running = asyncio.create_task(node_app.run(node_settings, node_ready.set_result, stop))
    both: set[asyncio.Future[Any]] = {running, node_ready}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
        return
    settings = replace(settings, nodes=(*settings.nodes, node_ready.result()))
    try:
        await scheduler_app.run(settings, announce_ready, stop)
    finally:
        stop.set()
        await running


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in flags.items() if value is not None and value != ()}


def _settings(kind: Any, table: str, config: Path | None, flags: dict[str, Any]) -> Any:
    from protocol.program.logs import set_up_logging
    from protocol.program.settings import load

    try:
        settings = load(kind, table, file=config, flags=given(flags))
        set_up_logging(settings.log_level, settings.log_format)
    except PoolError as error:
        raise Failure(error, USAGE) from error
    return settings


def _run(program: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    from protocol.program.running import until_told

    async def main() -> None:
        stop = asyncio.Event()
        signals = asyncio.create_task(until_told(stop))
        try:
            await program(stop)
        finally:
            signals.cancel()

    try:
        asyncio.run(main())
    except PoolError as error:
        raise Failure(error, USAGE) from error
    except OSError as error:
        if not error.filename:
            raise
        raise Failure(PoolError(f"{error.filename}: {error.strerror}"), USAGE) from error
