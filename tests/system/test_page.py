"""The page in a real browser: headless Chromium, driven over its DevTools websocket.

A missing browser fails these tests: `make test` installs it.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.web import Application
from tornado.websocket import WebSocketClientConnection, websocket_connect

from protocol.api.mount import application
from protocol.api.route import ApiSettings, Context
from protocol.model.build import Build, new_build
from protocol.model.messages import BuildPage, BuildQuery, Registration, Roster, RosterEntry
from protocol.model.request import BuildRequest
from protocol.ports.service import BuildService, Caller
from scheduler.web import pages
from tests.callers import Locals

pytestmark = pytest.mark.system

LIMIT = 60
"""Seconds for one test: a browser on two busy cores takes its time to start."""

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


class Pool:
    """What the page shows; a test changes it. Stands for roster port and build service."""

    def __init__(self) -> None:
        self.nodes = {
            name: RosterEntry(
                url=f"http://192.0.2.{number}:8090",
                found=("mdns",),
                state="ready",
                reason="",
                id=f"{number:016x}",
                name=name,
                role="node",
                version="0.1.0",
                architecture="x86_64",
                stated_priority=0,
                priority=0,
                slots=4,
                labels=("a", "b", "c", "d", "e", "last"),
                last_seen=0.5,
                latency=0.002,
            )
            for number, name in enumerate(["anvil", "forge", *(f"n{i}" for i in range(20))], 1)
        }
        self.builds: tuple[Build, ...] = ()

    def change(self, which: str, **fields: object) -> None:
        """The node is different from now on."""
        self.nodes[which] = replace(self.nodes[which], **fields)

    def roster(self) -> Roster:
        """As the port has it."""
        return Roster("lab", tuple(self.nodes.values()), waiting=1, running=0)

    def register(self, registration: Registration) -> None:
        """As the port has it."""

    async def list(self, caller: Caller, query: BuildQuery) -> BuildPage:
        """As the build service has it."""
        return BuildPage(self.builds)


class Tab:
    """A page in the browser, by the DevTools protocol; every complaint of the browser is kept."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self.connection = connection
        self.numbers = itertools.count(1)
        self.complaints: list[str] = []

    async def call(self, method: str, **parameters: object) -> dict:
        """A command's result."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        await self.connection.write_message(json.dumps(message))
        while (answer := await self._next()).get("id") != number:
            self._note(answer)
        assert "error" not in answer, answer
        return answer["result"]

    async def event(self, method: str) -> None:
        """Wait for an event."""
        while (event := await self._next())["method"] != method:
            self._note(event)

    async def _next(self) -> dict:
        text = await self.connection.read_message()
        assert text is not None, "the browser is gone"
        return json.loads(text)

    def _note(self, event: dict) -> None:
        if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(event["params"]))

    async def close(self) -> None:
        """End the browser."""
        await self.connection.write_message(json.dumps({"id": 0, "method": "Browser.close"}))
        while await self.connection.read_message() is not None:
            pass
        self.connection.close()

    async def open(self, url: str, *, width: int = 1280, scheme: str = "light") -> None:
        """Show a page, in a window of this width, as somebody who prefers this colour scheme."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self.call("Emulation.setEmulatedMedia", features=[feature])
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        for domain in ("Page", "Log", "Runtime"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        await self.event("Page.loadEventFired")

    async def value(self, expression: str) -> object:
        """What a JavaScript expression is, once it is."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true; the page says when it changed."""
        await self.value(
            f"""new Promise((resolve) => {{
                const look = () => ({condition}) && (watcher.disconnect(), resolve(true));
                const watcher = new MutationObserver(look);
                const what = {{ childList: true, attributes: true, characterData: true }};
                watcher.observe(document, {{ subtree: true, ...what }});
                look();
            }})"""
        )

    async def screenshot(self) -> bytes:
        """The whole page as a PNG."""
        answer = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Tab]:
    """A Chromium with nothing in it, and its one tab."""
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    process = await asyncio.create_subprocess_exec(
        "chromium",
        *FLAGS,
        f"--user-data-dir={folder.name}",
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    reading = None
    try:
        async with asyncio.timeout(
            LIMIT - 10
        ):  # before the test is given up, which leaves all as it is
            address = await _devtools(process.stderr)
            reading = asyncio.create_task(_drain(process.stderr))
            tab = Tab(await _first_tab(address))
            try:
                yield tab
            finally:
                await tab.close()
            await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if reading is not None:
            await reading
        folder.cleanup()


def save(path: Path, picture: bytes) -> None:
    """Leave a picture for whoever wants to see it."""
    path.write_bytes(picture)


async def _devtools(lines: asyncio.StreamReader) -> str:
    """Where the browser listens, which it says on standard error."""
    said = b""
    while line := await lines.readline():
        said += line
        if match := re.search(rb"DevTools listening on (ws://\S+)", line):
            return match[1].decode()
    raise AssertionError(f"Chromium did not start: {said.decode(errors='replace')}")


async def _first_tab(address: str) -> WebSocketClientConnection:
    host = address.split("/")[2]
    answer = await AsyncHTTPClient().fetch(f"http://{host}/json/list")
    pages = [target for target in json.loads(answer.body) if target["type"] == "page"]
    where = pages[0]["webSocketDebuggerUrl"]
    return await websocket_connect(where, max_message_size=64 << 20)


async def _drain(lines: asyncio.StreamReader) -> None:
    while await lines.read(1 << 16):
        pass


ROW = "document.querySelector('[data-key=\"http://192.0.2.2:8090\"]')"
"""The node called forge."""


@pytest.fixture
def pool() -> Pool:
    """Twenty-two nodes and a build."""
    pool = Pool()
    build = new_build("0" * 32, BuildRequest(), origin="o", owner="a", now=0)
    pool.builds = (replace(build, reason="every node is busy"),)
    return pool


@pytest.fixture
def app(pool: Pool) -> Application:
    """The page's routes as the scheduler mounts them."""
    return application(
        Context(cast(BuildService, pool), ApiSettings(), Locals(), {"roster": pool}), pages.ROUTES
    )


@pytest.mark.gen_test(timeout=LIMIT)
async def test_it_shows_every_node_and_asks_nobody_else(
    pool: Pool, http_server: HTTPServer, base_url: str
) -> None:
    """The page is whole, no name is taken for markup, the browser has nothing to complain of."""
    pool.change("forge", name="<script>window.hostile = true</script>")
    async with browser() as tab:
        await tab.open(base_url + "/")
        names = await tab.value(
            "[...document.querySelectorAll('.nodes .name bdi')].map((name) => name.textContent)"
        )
        fetched = await tab.value("performance.getEntries().map((entry) => entry.name)")
        assert await tab.value("window.hostile") is None
        assert "every node is busy" in str(await tab.value("document.body.innerText"))
        assert tab.complaints == []
    assert isinstance(names, list)
    assert isinstance(fetched, list)
    assert sorted(names) == sorted(node.name for node in pool.nodes.values())
    urls = [url for url in fetched if "://" in url]
    assert len(urls) >= 3
    assert all(url.startswith(base_url + "/") for url in urls)


@pytest.mark.gen_test(timeout=LIMIT)
async def test_it_keeps_itself_fresh_and_the_reader_where_he_is(
    pool: Pool, http_server: HTTPServer, base_url: str
) -> None:
    """A node that turns busy shows; scroll position, selection, opened details, the row stay."""
    async with browser() as tab:
        await tab.open(base_url + "/")
        await tab.value(f"""(() => {{
            window.row = {ROW};
            row.querySelector("details").open = true;
            getSelection().selectAllChildren(row.querySelector(".name bdi"));
            scrollTo(0, 200);
        }})()""")
        pool.change("forge", state="busy", reason="no free slot", used=4)
        pool.change("anvil", priority=-5)
        del pool.nodes["n3"]
        await tab.until(f"{ROW}.className === 'busy'")
        assert "no free slot" in str(await tab.value(f"{ROW}.innerText"))
        assert await tab.value(f"{ROW} === row && row.querySelector('details').open")
        assert await tab.value("getSelection().toString()") == "forge"
        assert await tab.value("scrollY") == 200
        order = await tab.value(
            "[...document.querySelectorAll('.nodes .name bdi')].map((name) => name.textContent)"
        )
        assert isinstance(order, list)
        assert (order[0], order[-1], len(order)) == ("forge", "anvil", 21)
        assert "1 busy" in str(await tab.value("document.title"))
        assert tab.complaints == []


@pytest.mark.gen_test(timeout=LIMIT)
async def test_it_says_when_the_scheduler_does_not_answer(
    app: Application, http_server: HTTPServer, base_url: str, http_port: int
) -> None:
    """What is shown then is marked as old, until there is an answer again."""
    said = "document.getElementById('connection').textContent"
    async with browser() as tab:
        await tab.open(base_url + "/")
        http_server.stop()
        await http_server.close_all_connections()
        await tab.until(f"{said} !== ''")
        assert "does not answer" in str(await tab.value(said))
        assert await tab.value("document.body.matches('.stale')")
        again = HTTPServer(app)
        again.listen(http_port, "localhost")
        await tab.until(f"{said} === ''")
        assert not await tab.value("document.body.matches('.stale')")
        again.stop()
        await again.close_all_connections()


@pytest.mark.gen_test(timeout=LIMIT)
async def test_it_reloads_itself_without_its_script(
    pool: Pool, http_server: HTTPServer, base_url: str
) -> None:
    """Where scripts are switched off, the page comes anew every few seconds."""
    async with browser() as tab:
        await tab.call("Emulation.setScriptExecutionDisabled", value=True)
        await tab.open(base_url + "/")
        pool.change("forge", state="busy")
        await tab.event("Page.loadEventFired")
        assert await tab.value(f"{ROW}.className") == "busy"


@pytest.mark.gen_test(timeout=LIMIT)
async def test_it_looks_right_light_and_dark_wide_and_narrow(
    http_server: HTTPServer, base_url: str, tmp_path: Path
) -> None:
    """Each has a picture of its own, and nothing sticks out at the side."""
    pictures: set[bytes] = set()
    lightness: dict[str, int] = {}
    async with browser() as tab:
        for width in (1280, 390):
            for scheme in ("light", "dark"):
                await tab.open(base_url + "/", width=width, scheme=scheme)
                picture = await tab.screenshot()
                save(tmp_path / f"page-{width}-{scheme}.png", picture)
                assert picture.startswith(b"\x89PNG")
                assert len(picture) > 10_000
                assert await tab.value("document.documentElement.scrollWidth") == width
                paper = await tab.value(
                    "getComputedStyle(document.documentElement).backgroundColor"
                )
                lightness[scheme] = sum(map(int, re.findall(r"\d+", str(paper))[:3]))
                pictures.add(picture)
    assert len(pictures) == 4
    assert lightness["dark"] < 150 < 600 < lightness["light"]
