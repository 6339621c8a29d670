"""What is not told to whoever says by mDNS that they are the pool, and not believed of them."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from imagepool import AsyncClient
from imagepool.client import Invalid
from imagepool.client.finding import is_here
from protocol.errors import PoolError, Unavailable
from protocol.remote.guard import own_addresses

pytestmark = pytest.mark.gen_test

ELSEWHERE = "http://192.0.2.7:8080"

Verb = Callable[[AsyncClient], Awaitable[object]]
CONFIDING: dict[str, Verb] = {
    "secrets": lambda pool: pool.retry("ab", secrets={"key": "v"}),
    "an invitation": lambda pool: pool.invitation(),
    "a password": lambda pool: pool.put_user("ada", "viewer", "correct horse battery"),  # type: ignore[arg-type]
}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Say what mDNS finds."""
    monkeypatch.delenv("IMAGEPOOL_URL", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def says(url: str) -> None:
        async def find() -> str:
            return url

        monkeypatch.setattr("imagepool.client.asking.find_scheduler", find)

    return says


@pytest.mark.parametrize("what", CONFIDING)
async def test_somebody_on_another_machine(found: Callable[[str], None], what: str) -> None:
    """Is told nothing of what counts: no connection is made."""
    found(ELSEWHERE)
    async with AsyncClient(persistence=0) as pool:
        with pytest.raises(Invalid, match="may be anybody") as refused:
            await CONFIDING[what](pool)
    assert refused.value.field == "url"


@pytest.mark.parametrize("what", CONFIDING)
async def test_somebody_here_or_named(found: Callable[[str], None], what: str) -> None:
    """Is asked: here there is nobody, which is another error."""
    found("http://127.0.0.1:9")
    for url in ("", "http://127.0.0.1:9"):
        async with AsyncClient(url, persistence=0) as pool:
            with pytest.raises(Unavailable):
                await CONFIDING[what](pool)


def test_which_machine_is_this_one() -> None:
    """By its addresses."""
    own = next(str(one) for one in own_addresses() if one.version == 4)
    assert [is_here(url) for url in (f"http://{own}:1", "http://[::1]:1")] == [True, True]
    assert not any(is_here(url) for url in (ELSEWHERE, "http://[fe80::2%eth0]:1"))


async def test_a_build_with_secrets(found: Callable[[str], None]) -> None:
    """Nothing of it is sent, not its inputs either."""
    found(ELSEWHERE)
    async with AsyncClient(persistence=0) as pool:
        with pytest.raises(PoolError, match="may be anybody"):
            await pool.submit(
                {"recipe": {"commands": [{"name": "a", "text": "x"}]}}, secrets={"key": "v"}
            )
