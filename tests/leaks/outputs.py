"""What is heard of all that programs write, besides what pytest captures.

Programs in pipes are heard where Python reads these, whoever started them: standard error of all,
standard output of ours that serve. What a command that is asked for a secret answers, on its
standard output, is the secret. Of programs in the tests' own process every line of their logs is
heard, also those below the level that is shown; what goes into the audit log; and what a container
is started with, which everybody may read who may speak to the engine.
"""

import asyncio.subprocess
import functools
import json
import logging
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from node.engines import docker as docker_engine
from protocol.trust.audit import Audit
from tests import leaks

SERVING = {"node", "scheduler", "up"}
"""Commands of ours that write no secret on standard output either."""
_LOGS = ("protocol", "node", "scheduler", "imagepool", "tornado", "aiohttp", "docker", "asyncio")


def install() -> None:
    """Hear it from now on."""
    _hear_pipes()
    for name, level in (("debug", logging.DEBUG), ("info", logging.INFO)):
        setattr(logging.Logger, name, _heard_line(getattr(logging.Logger, name), level))
    _before(Audit, "note", lambda _, deed: leaks.wrote(repr(deed), "the audit log"))
    made = docker_engine.container_config

    def started(*arguments: Any) -> dict[str, Any]:
        config = made(*arguments)
        leaks.wrote(json.dumps(config), "a container's configuration")
        return config

    docker_engine.container_config = started


def title(arguments: Sequence[Any] | str | bytes) -> str:
    """A program in few words, without arguments that may be secret."""
    words = [str(word) for word in arguments] if not isinstance(arguments, str | bytes) else []
    if "imagepool" in words:
        return " ".join(["imagepool", *words[words.index("imagepool") + 1 :][:1]])
    return words[0].rpartition("/")[2] if words else "a program"


def is_serving(arguments: Sequence[Any] | str | bytes) -> bool:
    """Whether its standard output is searched too."""
    name, _, command = title(arguments).partition(" ")
    return (name == "imagepool" and command in SERVING) or "imagepool.demo" in arguments


def _hear_pipes() -> None:
    waited = subprocess.Popen.communicate

    @functools.wraps(waited)
    def communicate(self: "subprocess.Popen[Any]", *arguments: Any, **named: Any) -> Any:
        out, err = waited(self, *arguments, **named)
        for text, heard in ((err, True), (out, is_serving(self.args))):
            if text and heard:
                leaks.wrote(text, title(self.args))
        return out, err

    subprocess.Popen.communicate = communicate  # type: ignore[method-assign]
    protocol = asyncio.subprocess.SubprocessStreamProtocol

    def received(self: Any, fd: int, data: bytes) -> None:
        vars(self).setdefault("heard", {}).setdefault(fd, []).append(data)

    def ended(self: Any, fd: int, _: Any) -> None:
        data = b"".join(vars(self).setdefault("heard", {}).pop(fd, ()))
        child = self._transport.get_extra_info("subprocess")
        if data and (fd == 2 or is_serving(child.args)):
            leaks.wrote(data, title(child.args))

    _before(protocol, "pipe_data_received", received)
    _before(protocol, "pipe_connection_lost", ended)


def _heard_line(log: Callable[..., None], level: int) -> Callable[..., None]:
    @functools.wraps(log)
    def heard(self: logging.Logger, message: object, *arguments: Any, **named: Any) -> None:
        if self.name.startswith(_LOGS) and not self.isEnabledFor(level):
            text = str(message) % arguments if arguments else str(message)
            leaks.wrote(f"{text} {named.get('extra', '')}", f"log {self.name}")
        # One frame deeper than it was: the line is to have its own place.
        log(self, message, *arguments, **{**named, "stacklevel": named.get("stacklevel", 1) + 1})

    return heard


def _before(kind: type, name: str, hear: Callable[..., None]) -> None:
    method = getattr(kind, name)

    @functools.wraps(method)
    def heard(self: Any, *arguments: Any) -> Any:
        hear(self, *arguments)
        return method(self, *arguments)

    setattr(kind, name, heard)
