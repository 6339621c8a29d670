"""Logging in and out in a real browser."""

from pathlib import Path

import pytest

from protocol.ports.service import Role
from tests.programs import a_scheduler
from tests.system.test_page import LIMIT, Tab, browser

pytestmark = [pytest.mark.system, pytest.mark.gen_test(timeout=LIMIT)]

PASSWORD = "correct horse battery"


async def typed(tab: Tab, name: str, password: str) -> None:
    """Fill the form, and send it."""
    await tab.value(
        f"""document.getElementById("name").value = "{name}",
        document.getElementById("password").value = "{password}",
        document.querySelector("button").click()"""
    )


async def test_in_and_out(tmp_path: Path) -> None:
    """A wrong password is told in words; the right one leads to the page, which knows who looks;
    the way out leads back. The browser has nothing to complain of but the refusals.
    """
    async with a_scheduler(tmp_path, name="control") as pool, browser() as tab:
        await pool.parts.people.accounts.put_user("ada", Role.USER, PASSWORD)
        await tab.open(pool.url)
        assert await tab.value("document.querySelector('h1').textContent") == "Log in"
        await typed(tab, "ada", "a wrong guess")
        await tab.until("document.getElementById('trouble').textContent.includes('wrong')")
        await typed(tab, "ada", PASSWORD)
        await tab.event("Page.loadEventFired")
        assert await tab.value("document.querySelector('h1').textContent") == "control"
        assert await tab.value("document.querySelector('.who bdi').textContent") == "ada"
        assert await tab.value("document.cookie") == ""
        await tab.open(f"{pool.url}/login")  # once more, by the form
        await typed(tab, "ada", PASSWORD)
        await tab.event("Page.loadEventFired")
        assert await tab.value("document.querySelector('h1').textContent") == "control"
        await tab.value("document.getElementById('log-out').click()")
        await tab.event("Page.loadEventFired")
        assert await tab.value("document.querySelector('h1').textContent") == "Log in"
        assert all("401 (Unauthorized)" in complaint for complaint in tab.complaints)
        page = await pool.parts.people.audit.deeds(1 << 62, 100)
        done = [(deed.who, deed.what, deed.status) for _, deed in page if "session" in deed.what]
        assert done == [
            ("ada", "DELETE /api/v1/session", 204),
            ("ada", "POST /api/v1/session", 200),
            ("ada", "POST /api/v1/session", 200),
            ("", "POST /api/v1/session", 401),
        ]
