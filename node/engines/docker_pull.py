"""A pull as its reader sees it: lines of progress, and the reason why it failed.

The engine has no codes for reasons, only the words of Go's network library and of the registry.
"""

from typing import Any

from node.engines.errors import EngineError, ImageUnknown, PullFailed, RegistryUnreachable

_UNKNOWN = (
    "not found",
    "does not exist",
    "manifest unknown",
    "http 404",
    "denied",
    "unauthorized",
    "no basic auth credentials",
    "invalid reference",
)
_UNREACHABLE = (
    "no such host",
    "server misbehaving",  # the resolver, in the engine's words
    "connection refused",
    "connection reset",
    "network is unreachable",
    "no route to host",
    "timeout",
    "timed out",
    "deadline exceeded",
    "awaiting headers",
    "unexpected eof",
    ": eof",
    "service unavailable",
    "bad gateway",
    "too many requests",
    "toomanyrequests",
)
_MACHINE = (
    "no space left on device",
    "disk quota exceeded",
    "read-only file system",
    "input/output error",
    "cannot allocate memory",
)


def news(event: dict[str, Any], seen: dict[str, str]) -> str:
    """A line where a layer's status is new; the engine repeats it with every piece."""
    layer, status = event.get("id", ""), event.get("status", "")
    if not status or (layer and seen.get(layer) == status):
        return ""
    seen[layer] = status
    return f"{layer}: {status}" if layer else status


def pull_error(image: str, words: str) -> EngineError:
    """What kept an image from being pulled."""
    lower = words.lower()
    if any(sign in lower for sign in _MACHINE):
        return EngineError(f"{image} could not be pulled: {words}")
    if any(sign in lower for sign in _UNREACHABLE):
        return RegistryUnreachable(f"the registry of {image} does not answer: {words}")
    if any(sign in lower for sign in _UNKNOWN):
        return ImageUnknown(f"there is no image {image}: {words}")
    return PullFailed(f"{image} could not be pulled: {words}")
