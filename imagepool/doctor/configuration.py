"""Whether the settings can be read, and make sense."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagepool.cli.config import settings_of
from imagepool.doctor.finding import Finding, Program, fail, ok
from node.config import NodeSettings
from node.core.reach import allowed_networks
from protocol.errors import PoolError
from protocol.program.settings import host_and_port, load
from scheduler.config import SchedulerSettings
from scheduler.pool.discovery import node_url

_NAME = "configuration"
_KINDS: dict[Program, Any] = {"node": NodeSettings, "scheduler": SchedulerSettings}
_URLS = ("schedulers", "nodes", "plain_nodes")


def configured(
    program: Program, file: Path | None, flags: Mapping[str, Any]
) -> tuple[Any, Finding]:
    """The settings of the program that is started like this, None where they are wrong; and what is
    to be said of them.
    """
    kind = _KINDS[program]
    known = {name: value for name, value in flags.items() if name in kind.__struct_fields__}
    foreign = sorted(set(flags) - set(known))
    if foreign:
        words = f"a {program} has no --{foreign[0].replace('_', '-')}"
        return None, fail(_NAME, words, "--program says which program is meant")
    try:
        settings = load(kind, program, file=file, flags=known)
        _check(settings)
    except PoolError as error:
        named = "" if not error.field or error.field in error.detail else f"{error.field}: "
        mend = f"expected: {error.expected}" if error.expected else f"mend {error.field}"
        return None, fail(_NAME, named + error.detail, mend)
    sources: dict[str, list[str]] = {}
    for each in settings_of(settings, program, file, known):
        if each.source != "default":
            variable = each.source.startswith("environment ")
            sources.setdefault("environment" if variable else each.source, []).append(each.name)
    parts = [f"{source}: {', '.join(names)}" for source, names in sources.items()]
    told = "; ".join(parts) or "every setting is as it comes"
    unread = f"; {file} has no [{program}]" if file and f"file {file}" not in sources else ""
    return settings, ok(_NAME, f"{told}{unread}")


def _check(settings: Any) -> None:
    """What the program itself sees only later. Raises Invalid."""
    if settings.pool_listen:
        host_and_port(settings.pool_listen, "pool_listen")
    for field in _URLS:
        for url in getattr(settings, field, ()):
            node_url(url, field)
    allowed_networks(getattr(settings, "build_networks_allowed", ()))
