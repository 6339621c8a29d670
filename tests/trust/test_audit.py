"""What was done, and what was refused."""

from pathlib import Path

import pytest

from protocol.trust.audit import Audit, Deed

pytestmark = pytest.mark.gen_test


def deed(number: int, status: int = 200) -> Deed:
    """Something that was done at that second."""
    return Deed(1e9 + number, "ada", "", "::1", "POST /create", status)


async def test_deeds(tmp_path: Path) -> None:
    """They are read from the newest on, after a restart too, and can be changed by nobody."""
    one = Audit(tmp_path, lambda: 1e9)
    for number in range(5):
        one.note(deed(number, 200 + number))
    await one.close()
    one = Audit(tmp_path, lambda: 1e9)
    newest = await one.deeds(1 << 62, 3)
    assert [done.status for _, done in newest] == [204, 203, 202]
    rest = await one.deeds(newest[-1][0], 3)
    assert [done.status for _, done in rest] == [201, 200]
    await one.forget(1e9 + 4)
    assert [done.status for _, done in await one.deeds(1 << 62, 9)] == [204]
    with pytest.raises(Exception, match="append-only"):
        await one._database.write(lambda c: c.execute("UPDATE audit SET at = 0"))
    await one.close()


async def test_what_is_refused_pushes_out_nothing_that_was_done(tmp_path: Path) -> None:
    """However often somebody is refused, the log has a bound."""
    one = Audit(tmp_path, lambda: 1e9, refused=10)
    one.note(deed(0))
    for number in range(1000):
        one.note(deed(number, 401))
        await one.written()
    found = [done.status for _, done in await one.deeds(1 << 62, 2000)]
    assert found[-1] == 200
    assert found.count(401) < 10 + 100
    await one.close()


async def test_long_words(tmp_path: Path) -> None:
    """A path that somebody made up does not fill the log."""
    one = Audit(tmp_path, lambda: 1e9)
    one.note(Deed(1e9, "x" * 10_000, "", "::1", "POST /" + "x" * 60_000, 404))
    ((_, kept),) = await one.deeds(1 << 62, 9)
    assert len(kept.what) + len(kept.who) < 1000
    await one.close()
