"""haproxy as a proxy in front of a node: its own configuration, folder and ports, no service."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from bench.nginx import serving
from bench.pool import Papers, free_port
from bench.processes import Running


class Way(Struct, frozen=True):
    """Through it to a node."""

    to: str  # URL of the node
    papers: Papers | None = None  # by TLS with these, or without
    more: str = ""  # what is set beyond haproxy's defaults


_GENERAL = """
global
    nbthread 1
    maxconn 64
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""
_WAY = """
listen way{port}
    bind 127.0.0.1:{port}
    {more}
    server node {to}{tls}
"""
_TLS = (
    " ssl verify required ca-file {authorities} crt {certificate} sni str({name}) verifyhost {name}"
    " alpn http/1.1 ssl-min-ver TLSv1.3"
)


@contextlib.asynccontextmanager
async def haproxy(folder: Path, ways: Mapping[str, Way]) -> AsyncIterator[dict[str, Running]]:
    """haproxy while the context lasts: one process, which serves every way at a URL of its own."""
    home = folder / "haproxy"
    home.mkdir()
    config = home / "haproxy.cfg"
    ports = {name: free_port() for name in ways}
    config.write_text(
        _GENERAL + "".join(_said(way, ports[name]) for name, way in ways.items()) + "\n"
    )
    binary = shutil.which("haproxy") or "/usr/sbin/haproxy"
    with (home / "errors.log").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(binary, "-db", "-f", str(config)), stdout=errors, stderr=errors
        )
    try:
        for port in ports.values():
            await serving(port)
        yield {
            name: Running(f"http://127.0.0.1:{port}", process.pid) for name, port in ports.items()
        }
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _said(way: Way, port: int) -> str:
    tls = ""
    if way.papers is not None:
        papers = way.papers
        tls = _TLS.format(
            authorities=papers.authorities, certificate=papers.certificate, name=papers.name
        )
    return _WAY.format(port=port, more=way.more, to=urlsplit(way.to).netloc, tls=tls)
