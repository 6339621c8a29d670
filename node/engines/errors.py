"""How a call of an engine comes to no good end: it fails, or is ended.

Errors::

    EngineError
    ├── EngineDown           the engine does not answer
    ├── ImageUnknown         no such image here nor in its registry
    ├── ImageFailed          no image can be made of what was given
    ├── PullFailed           the image is not here, and could not be had
    │   └── RegistryUnreachable  the registry that may have it did not answer
    ├── ContainerRefused     the engine would not create or start it: in the engine's words
    │   └── NameTaken        a container of this name exists already
    └── Interrupted          whoever asked for it did not want it any more

What each means for a build is decided in `node/attempt/faults.py`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class EngineError(Exception):
    """The engine could not do what was asked; the text is fit to be shown to a user."""


class EngineDown(EngineError):
    """The engine does not answer."""


class ImageUnknown(EngineError):
    """There is no image of this name here, and its registry, if one answered, has none either."""


class ImageFailed(EngineError):
    """No image can be made of what was given; `code` is that of the step that failed."""

    def __init__(self, words: str, code: int = 1) -> None:
        super().__init__(words)
        self.code = code


class PullFailed(EngineError):
    """The image is not here, and could not be had, for another reason than that there is none."""


class RegistryUnreachable(PullFailed):
    """The image is not here, and the registry that may have it did not answer."""


class ContainerRefused(EngineError):
    """The engine would not create or start the container."""


class NameTaken(ContainerRefused):
    """A container of this name exists already: perhaps our own, from before a crash."""


class Interrupted(EngineError):
    """The call was ended by its `Interrupt`."""


class Interrupt(threading.Event):
    """Ends what other threads do, once it is set: they look at it, and where they block they say
    what ends that.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._ends: list[Callable[[], None]] = []

    def set(self) -> None:
        """Now, and for good. Does not block."""
        super().set()
        with self._lock:
            ends = tuple(self._ends)
        for end in ends:
            end()

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """While this lasts, it is ended by `end`, which may also come too late or twice."""
        with self._lock:
            self._ends.append(end)
        try:
            if self.is_set():
                end()
            yield
        finally:
            with self._lock:
                self._ends.remove(end)

    def check(self) -> None:
        """Raises Interrupted where it is set."""
        if self.is_set():
            raise Interrupted("it was ended")
