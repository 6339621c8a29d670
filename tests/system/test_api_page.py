"""The page that shows the API's document, in a real browser."""

import pytest

from protocol.api.openapi import document
from scheduler.app import ROUTES
from tests.programs import a_scheduler
from tests.system.test_page import LIMIT, browser

pytestmark = pytest.mark.system


@pytest.mark.gen_test(timeout=LIMIT)
async def test_it_shows_the_whole_document_and_asks_nobody_else(tmp_path) -> None:
    """Every operation and every type; a link to a type opens it; the filter hides the rest; the
    browser has nothing to complain of, and loads nothing from outside.
    """
    made = document(ROUTES)
    operations = sum(
        1 for item in made["paths"].values() for method in item if method != "parameters"
    )
    async with a_scheduler(tmp_path) as scheduler, browser() as tab:
        await tab.open(scheduler.url + "/api/docs")
        await tab.until(
            f"document.querySelectorAll('.type').length === {len(made['components']['schemas'])}"
        )
        count = await tab.value("document.querySelectorAll('.operation').length")
        assert count == operations
        said = str(await tab.value("document.getElementById('post-builds').textContent"))
        assert "Submit a build" in said
        assert "Idempotency-Key" in said
        assert "application/msgpack" in said
        await tab.value("document.querySelector('#post-builds a[href=\"#type-Order\"]').click()")
        await tab.until("document.getElementById('type-Order').open")
        await tab.value(
            """(() => {
                const filter = document.getElementById('filter');
                filter.value = 'cordon';
                filter.dispatchEvent(new Event('input'));
            })()"""
        )
        shown = await tab.value(
            "[...document.querySelectorAll('.operation')].filter((one) => !one.hidden)"
            ".map((one) => one.id)"
        )
        assert shown == [
            "post-nodes-node-cordon",
            "post-nodes-node-drain",
            "post-nodes-node-uncordon",
        ]
        fetched = await tab.value("performance.getEntries().map((entry) => entry.name)")
        assert isinstance(fetched, list)
        urls = [url for url in fetched if "://" in url]
        assert len(urls) >= 4
        assert all(url.startswith(scheduler.url + "/") for url in urls)
        wide = await tab.value("document.documentElement.scrollWidth <= innerWidth")
        assert tab.complaints == []
        assert wide
