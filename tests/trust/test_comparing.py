"""How secrets are compared: what is looked up is an id that is no secret, and what is compared is
compared in constant time, a digest wherever the other side is kept.
"""

import ast
import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from protocol.api.callers import CSRF_HEADER, ClientCallers, Rules, csrf_token
from protocol.api.failures import Failures
from protocol.errors import Denied
from protocol.model.messages import Forwarded
from protocol.model.request import Forward
from protocol.ports.service import Role
from protocol.trust import accounts, seal, token
from protocol.trust.accounts import Accounts
from protocol.trust.seal import Seal
from scheduler.pool import authority
from scheduler.pool.authority import Authority
from tests.programs import request

ROOT = Path(__file__).parents[2]
SECRET_WORDS = {"secret", "password", "cookie", "csrf", "seal", "bearer", "hashed", "credentials"}
"""Words that names of values have here that nobody is to learn by trying."""
LOOKS = {"get", "pop", "setdefault", "index", "count", "startswith", "endswith", "find"}
"""Methods that compare as `==` does, or look into a table."""
NO_SECRET = {
    # The name of a family's cookie.
    "protocol/api/log_in.py: handler.request.cookies.get(cookie)",
    "protocol/api/traffic_ops/handlers.py: self.request.cookies.get(COOKIE)",
    # The cookie's name, which belongs to the program.
    "protocol/api/callers.py: request.cookies.get(self._accounts.cookie)",
    # The name of a build's secret, which its request tells.
    "protocol/builds/notices.py: self._ledger.secrets_of(build.id).get(notice.secret, '')",
    # The name of a header.
    "protocol/api/callers.py: request.headers.get(CSRF_HEADER, '')",
    # Endings of files that may be keys.
    "protocol/program/source.py: name.endswith(_SECRET)",
    # Masks what a build prints, which has the secret and no reason to guess.
    "node/core/masking.py: data.find(secret)",
    "node/core/masking.py: data.find(secret, at + 1)",
}
"""What looks like a secret that is compared, and is none."""


def words(node: ast.AST) -> set[str]:
    """What the names in an expression are made of; of calls, what is called. Of many (`secrets`)
    only the names are looked up.
    """
    names = {node.id} if isinstance(node, ast.Name) else set()
    names |= {node.attr} if isinstance(node, ast.Attribute) else set()
    if isinstance(node, ast.Call):
        names = words(node.func) | {word for each in node.args for word in words(each)}
    return {word for name in names for word in name.lower().strip("_").split("_")}


def compared(tree: ast.AST) -> Iterator[str]:
    """Every expression that compares a secret, or looks something up by one, in a way that takes
    longer the more of it is right.
    """
    for node in ast.walk(tree):
        sides: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            alike = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
            if any(isinstance(operator, alike) for operator in node.ops):
                sides = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript):
            sides = [node.slice]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            sides = list(node.args) if node.func.attr in LOOKS else []
        if any(words(side) & SECRET_WORDS for side in sides):
            yield ast.unparse(node)


def test_no_secret_is_compared_by_eye() -> None:
    """By `==`, `in`, or as the key of a table, in any of our programs."""
    found = {
        f"{path.relative_to(ROOT)}: {expression}"
        for package in ("protocol", "node", "scheduler", "imagepool")
        for path in sorted((ROOT / package).rglob("*.py"))
        for expression in compared(ast.parse(path.read_text()))
    }
    assert found == NO_SECRET


@pytest.mark.parametrize(
    "text",
    [
        "if secret == self._secret: pass",
        "good = given != csrf_token(text)",
        "found = self._sessions[cookie]",
        "found = self._sessions.get(given_cookie)",
        "hashed(secret) in self._known",
        "known.startswith(password)",
    ],
)
def test_what_that_finds(text) -> None:
    """It is no test of names only that happen to be there today."""
    assert list(compared(ast.parse(text)))


class Compared:
    """`compare_digest`, and what it was given."""

    def __init__(self) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []

    def __call__(self, one: Any, other: Any) -> bool:
        pair = [side.encode() if isinstance(side, str) else side for side in (one, other)]
        self.pairs.append((pair[0], pair[1]))
        return hmac.compare_digest(one, other)


@pytest.fixture
def seen(monkeypatch) -> Compared:
    """What is compared in constant time from now on."""
    heard = Compared()
    monkeypatch.setattr(accounts, "compare_digest", heard)
    monkeypatch.setattr(authority, "compare_digest", heard)
    real = hmac.new

    class Hmac:
        """The module, as ours see it."""

        new = staticmethod(real)
        compare_digest = staticmethod(heard)

    monkeypatch.setattr("protocol.api.callers.hmac", Hmac)
    monkeypatch.setattr(seal, "hmac", Hmac)
    return heard


@pytest.mark.gen_test
async def test_tokens(tmp_path, seen) -> None:
    """One comparison of two digests for whatever is shown: the right token, one whose id is right,
    one that nobody has, and what is none.
    """
    people = Accounts(tmp_path, lambda: 1.0)
    right, _ = await people.make_token("ci", Role.USER)
    head, _, secret = right.rpartition("-")
    none = f"{accounts.PREFIX}{'a' * 8}-{'b' * 26}"
    for shown in (right, f"{head}-{'b' * 26}", none, "x", ""):
        seen.pairs.clear()
        try:
            assert people.token(shown).name == "ci"
            assert shown == right
        except Denied:
            assert shown != right
        ((one, other),) = seen.pairs
        assert len(one) == len(other) == 64
        assert secret.encode() not in one + other
        assert (one == other) is (shown == right) or shown in ("x", "")
    await people.close()


@pytest.mark.gen_test
async def test_a_page(tmp_path, seen) -> None:
    """What it sends is compared with what is made of its cookie."""
    people = Accounts(tmp_path, lambda: 1.0)
    user = await people.put_user("ada", Role.USER, "a long password")
    cookie = await people.begin_session(user)
    post = RequestStartLine("POST", "/", "HTTP/1.1")
    callers = ClientCallers(people, Rules(), Failures(10, 60))
    for given, right in ((csrf_token(cookie), True), ("0" * 64, False), ("", False)):
        headers = HTTPHeaders(
            {"Host": "localhost", "Cookie": f"{people.cookie}={cookie}", CSRF_HEADER: given}
        )
        asked = HTTPServerRequest(start_line=post, headers=headers)
        asked.remote_ip = "127.0.0.1"  # type: ignore[attr-defined]
        seen.pairs.clear()
        try:
            callers.caller_of(asked)
            assert right
        except Denied:
            assert not right
        of_cookie, of_page = seen.pairs
        assert cookie.rpartition("-")[2].encode() not in b"".join(of_cookie)
        assert of_page == (given.encode(), csrf_token(cookie).encode())
    await people.close()


def test_join_tokens(tmp_path, seen) -> None:
    """Two digests, whatever the joiner sends."""
    pool = Authority(tmp_path, 3600.0, lambda: 1.0)
    secret = pool.token.secret
    for sent in (secret, secret[:-1] + b"\0", b"", b"x" * 1000):
        seen.pairs.clear()
        try:
            pool.check(sent)
            assert sent == secret
        except Denied:
            assert sent != secret
        ((one, other),) = seen.pairs
        assert len(one) == len(other) == 64
        assert other.decode() == token.hashed(sent)
        assert secret not in one + other


def test_seals(seen) -> None:
    """The seal that an attempt has is compared with the one that it would have."""
    ours = Seal(b"0123456789abcdef")
    forward = Forward(id="a" * 26, origin="b", attempt=1)
    right = ours.of(request("true"), forward, "node")
    for sent in (right, "0" * 64, ""):
        seen.pairs.clear()
        sealed = Forward(id="a" * 26, origin="b", attempt=1, seal=sent)
        assert ours.holds(Forwarded(request("true"), sealed), "node") is (sent == right)
        assert seen.pairs == [(right.encode(), sent.encode())]


@pytest.mark.gen_test
async def test_passwords(tmp_path) -> None:
    """One hash for each, also for a name that nobody has: the time does not tell who is there."""
    people = Accounts(tmp_path, lambda: 1.0)
    await people.put_user("ada", Role.USER, "a long password")
    calls: list[str] = []
    hasher = people._passwords._hasher

    class Counting:
        """The hasher, and what it was asked to do."""

        def __getattr__(self, name: str) -> Any:
            calls.append(name)
            return getattr(hasher, name)

    people._passwords._hasher = Counting()  # type: ignore[assignment]
    for name in ("ada", "nobody"):
        with pytest.raises(Denied):
            await people.check_password(name, "another password")
    assert calls == ["verify", "hash"]
    await people.close()
