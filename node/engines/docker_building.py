"""What the Docker Engine's classic builder says, read: output of the steps, images that they made,
and the reason why it failed.
"""

import re
from collections.abc import Callable
from typing import Any

from node.engines.docker_pull import news, pull_error
from node.engines.errors import EngineDown, EngineError, ImageFailed, RegistryUnreachable

_MADE = re.compile(r" ---> ([0-9a-f]{12})\n")
_STEP = re.compile(r"Step \d+/\d+ : (.*)", re.DOTALL)
_FETCHES = re.compile(r"FROM\s+(\S+)|COPY\s.*--from=(\S+)", re.IGNORECASE)
_COMMAND = "The command '"  # how the reason of a step that ran and failed begins
_FULL = "no space left on device"


class Building:
    """One run of the builder."""

    def __init__(self, output: Callable[[bytes], None]) -> None:
        self.made: list[str] = []  # images of steps, oldest first
        self._output = output
        self._step = ""
        self._cached = False  # the image that is named next was there before
        self._seen: dict[str, str] = {}  # layers that are pulled
        self._problem: tuple[str, int] | None = None
        self._done = False

    def heard(self, event: dict[str, Any]) -> None:
        """What the builder says, one event after another."""
        if "error" in event:
            code = event.get("errorDetail", {}).get("code") or 1
            self._problem = self._problem or (str(event["error"]), code)
        self._done = self._done or str(event.get("stream", "")).startswith("Successfully built ")
        if line := news(event, self._seen):
            self._output(line.encode() + b"\n")
        if text := event.get("stream", ""):
            self._output(text.encode("utf-8", "surrogatepass"))
            self._follow(text)

    def check(self) -> None:
        """Raises what kept it from making the image."""
        if self._problem is not None:
            raise self._error(*self._problem)
        if not self._done:
            raise EngineDown("the Docker Engine ended the build of the image without a word")

    def _follow(self, text: str) -> None:
        if step := _STEP.fullmatch(text):
            self._step = step[1]
        elif text == " ---> Using cache\n":
            self._cached = True
        elif made := _MADE.fullmatch(text):
            if not self._cached and not self._step.upper().startswith("FROM"):
                self.made.append(made[1])
            self._cached = False

    def _error(self, words: str, code: int) -> EngineError:
        if words.startswith(_COMMAND):
            return ImageFailed(words, code if 0 < code < 256 else 1)
        if _FULL in words:
            return EngineError(f"the image could not be built: {words}")
        if fetched := _FETCHES.match(self._step):
            error = pull_error(fetched[1] or fetched[2], words)
            if isinstance(error, RegistryUnreachable):
                return error
        return ImageFailed(f"the image cannot be built: {words}")
