"""A large artifact through the scheduler's relay where scheduler and node speak the pool's TLS,
beside the relay without it, and beside haproxy in front of the same node with and without. The
client speaks none: it is `bench/download.py` for all.
"""

import contextlib
import tempfile
from pathlib import Path

from bench.haproxy import Way, haproxy
from bench.measure import Column, Outcome, interleaved, typical
from bench.pool import papers, two
from bench.relay import SIZE, artifact, side

PLAIN, RELAY = "relay", "relay, TLS"
OTHER_PLAIN, OTHER_SPLICE, OTHER = "haproxy", "haproxy, splice", "haproxy, TLS"
COLUMNS = (
    Column("speed", "MB/s", ratio=True, spread=True),
    Column("relay", "relay CPU, s/GiB", digits=2, spread=True),
    Column("origin", "node CPU, s/GiB", digits=2),
    Column("whole", "both, s/GiB", digits=2, ratio=True, spread=True),
    Column("memory", "relay peak, MiB"),
)


async def run(runs: int) -> Outcome:
    """Measure."""
    async with contextlib.AsyncExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="imagepool-bench-")))
        plain = await ending.enter_async_context(two(folder / "plain", tls=False))
        sealed = await ending.enter_async_context(two(folder / "tls", tls=True))
        paths = {one: await artifact(one.scheduler.url) for one in (plain, sealed)}
        ways = {
            OTHER_PLAIN: Way(plain.called),
            OTHER_SPLICE: Way(plain.called, more="option splice-response"),
            OTHER: Way(sealed.called, papers(folder / "tls")),
        }
        proxies = await ending.enter_async_context(haproxy(folder, ways))
        sides = {
            PLAIN: side(plain.scheduler.url + paths[plain], plain.node, plain.scheduler),
            OTHER_PLAIN: side(
                proxies[OTHER_PLAIN].url + paths[plain], plain.node, proxies[OTHER_PLAIN]
            ),
            OTHER_SPLICE: side(
                proxies[OTHER_SPLICE].url + paths[plain], plain.node, proxies[OTHER_SPLICE]
            ),
            RELAY: side(sealed.scheduler.url + paths[sealed], sealed.node, sealed.scheduler),
            OTHER: side(proxies[OTHER].url + paths[sealed], sealed.node, proxies[OTHER]),
        }
        samples = await interleaved(sides, runs)
    ours, theirs = (typical(samples, name, "speed") or 1 for name in (RELAY, OTHER))
    notes = (f"by TLS the relay has {ours / theirs:.2f} times the speed of haproxy",)
    title = f"An artifact of {SIZE >> 20} MiB over loopback, scheduler and node by TLS"
    return Outcome(title, COLUMNS, samples, notes)
