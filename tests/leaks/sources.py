"""What makes or takes a secret in our programs, and is listened to.

Nothing but the standard library is imported here: programs under test load this file by itself,
before anything of theirs (`child/sitecustomize.py`).
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeAlias

Told: TypeAlias = Callable[[str | bytes, str], None]
"""Called with a secret and what it is."""
Hears: TypeAlias = Callable[[Told, Mapping[str, Any], Any], None]
"""Called with the arguments by name, and with what was answered, None where it was an error."""


def _build_secrets(tell: Told, given: Mapping[str, Any], _: Any) -> None:
    for name, value in (given.get("secrets") or {}).items():
        tell(value, f"build secret {name}")
        tell(value.partition(":")[2], f"password of build secret {name}")  # of a registry


def _answer(what: str) -> Hears:
    return lambda tell, _, answer: tell(answer or "", what)


def _token(text: str) -> str:
    """What is secret of it: between is an id, which may be told."""
    return text.rpartition("-")[2] if text.startswith("imagepool-") else ""


def _made_token(tell: Told, given: Mapping[str, Any], answer: Any) -> None:
    tell(_token(answer[0]) if answer else "", "session" if given["session"] else "token")


def _shown_token(tell: Told, given: Mapping[str, Any], _: Any) -> None:
    tell(_token(given["text"]), "token that was shown")


def _argument(name: str, what: str) -> Hears:
    return lambda tell, given, _: tell(given[name] or "", what)


def _join_token(tell: Told, given: Mapping[str, Any], answer: Any) -> None:
    token = given.get("self") or answer
    if token is not None:
        tell(token.secret, "join secret")
    text = answer if isinstance(answer, str) else str(given.get("text", "")).strip()
    # What comes before in the text is the authority's digest, which anybody may know.
    tell(text[-28:] if text.startswith("imagepool-join-") else "", "join token")


def _authority(tell: Told, given: Mapping[str, Any], answer: Any) -> None:
    state = given.get("state") or answer
    tell(bytes.fromhex(state.secret) if state else b"", "join secret")


def _private_key(tell: Told, _: Mapping[str, Any], answer: Any) -> None:
    key = getattr(answer, "key", answer)
    if key is not None:
        tell(key.private_bytes_raw(), "private key")  # the rest of DER and PEM is always the same


def _identity(tell: Told, _: Mapping[str, Any], answer: Any) -> None:
    tell(answer.secret if answer else b"", "secret of a program's key")


def _seal(tell: Told, given: Mapping[str, Any], _: Any) -> None:
    tell(given["secret"], "seal key")
    tell(given["self"]._key, "seal key")


SOURCES: tuple[tuple[str, str, Hears], ...] = (
    ("protocol.remote.client", "HttpService.submit", _build_secrets),
    ("protocol.remote.client", "HttpService.retry", _build_secrets),
    ("node.service", "NodeService.submit", _build_secrets),
    ("node.service", "NodeService.retry", _build_secrets),
    ("scheduler.service", "SchedulerService.submit", _build_secrets),
    ("scheduler.service", "SchedulerService.retry", _build_secrets),
    ("protocol.trust.accounts", "Accounts._make", _made_token),
    ("protocol.trust.accounts", "Accounts.token", _shown_token),
    ("protocol.trust.accounts", "Accounts.put_user", _argument("password", "password")),
    ("protocol.trust.accounts", "Accounts.check_password", _argument("password", "password")),
    ("protocol.api.callers", "csrf_token", _answer("CSRF token")),
    ("protocol.trust.token", "JoinToken.__str__", _join_token),
    ("protocol.trust.token", "read", _join_token),
    ("protocol.trust.seal", "Seal.__init__", _seal),
    ("protocol.trust.tickets", "Tickets.give", _answer("ticket")),
    ("protocol.program.identity", "key_of", _private_key),
    ("protocol.program.identity", "load", _identity),
    ("scheduler.pool.authority", "Authority._write", _authority),
    ("scheduler.pool.authority", "Authority._read", _authority),
    ("scheduler.pool.authority", "Authority._load", _private_key),
    ("protocol.model.notice_rules", "signature", _argument("key", "signing key of notices")),
)
"""Module, what in it, and what hears of it."""


def install(tell: Told) -> None:
    """Listen to all of them, those that are not imported yet as soon as they are."""
    for module in {module for module, _, _ in SOURCES}:
        if module in sys.modules:
            _listen(sys.modules[module], tell)
    sys.meta_path.insert(0, _Finder(tell))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules with sources where they are, and listens when they have been loaded."""

    def __init__(self, tell: Told) -> None:
        self._tell = tell
        self._left = {module for module, _, _ in SOURCES}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Called by import."""
        if name not in self._left:
            return None
        self._left.discard(name)
        spec = importlib.util.find_spec(name)  # asks the others, and us in vain
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def loaded(module: ModuleType) -> None:
            load(module)
            _listen(module, self._tell)

        spec.loader.exec_module = loaded  # type: ignore[method-assign]
        return spec


def _listen(module: ModuleType, tell: Told) -> None:
    for place, name, hears in SOURCES:
        if place == module.__name__:
            holder, _, last = name.rpartition(".")
            owner = getattr(module, holder) if holder else module
            setattr(owner, last, _heard(getattr(owner, last), hears, tell))


def _heard(function: Callable[..., Any], hears: Hears, tell: Told) -> Callable[..., Any]:
    signature = inspect.signature(function)

    def hear(answer: Any, *arguments: Any, **named: Any) -> None:
        try:
            bound = signature.bind(*arguments, **named)
        except TypeError:  # a test of what is refused
            return
        bound.apply_defaults()
        hears(tell, bound.arguments, answer)

    @functools.wraps(function)
    def heard(*arguments: Any, **named: Any) -> Any:
        answer = None
        try:
            answer = function(*arguments, **named)
        finally:
            hear(answer, *arguments, **named)
        return answer

    @functools.wraps(function)
    async def awaited(*arguments: Any, **named: Any) -> Any:
        hear(None, *arguments, **named)
        answer = await function(*arguments, **named)
        hear(answer, *arguments, **named)
        return answer

    return awaited if inspect.iscoroutinefunction(function) else heard
