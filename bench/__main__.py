"""`python -m bench [NAME...] [--runs N] [--json FILE]`: measure all, or those that are named."""

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench import create, idle, logs, noop, relay, relay_tls, store, tls
from bench.measure import Outcome
from protocol.errors import PoolError

BENCHMARKS: dict[str, Callable[[int], Awaitable[Outcome]]] = {
    "noop": noop.run,
    "relay": relay.run,
    "relay-tls": relay_tls.run,
    "tls": tls.run,
    "idle": idle.run,
    "store": store.run,
    "create": create.run,
    "logs": logs.run,
}
RUNS = {
    "noop": 15,
    "relay": 7,
    "relay-tls": 5,
    "tls": 7,
    "idle": 2,
    "store": 9,
    "create": 5,
    "logs": 3,
}


async def measure(names: list[str], runs: int | None) -> dict[str, Outcome]:
    """Run them one after another, and show each as soon as it is there."""
    outcomes = {}
    for name in names:
        outcomes[name] = outcome = await BENCHMARKS[name](runs or RUNS[name])
        print(outcome.shown(), flush=True)
    return outcomes


def main() -> int:
    """The exit code: a figure that misses its aim is shown, and is no failure."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all, unless some are named")
    parser.add_argument("--runs", type=int, help="of each side")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all results there")
    flags = parser.parse_args()
    if unknown := set(flags.names) - set(BENCHMARKS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    if flags.runs is not None and flags.runs < 1:
        parser.error("--runs is a number from 1")
    try:
        outcomes = asyncio.run(measure(flags.names or list(BENCHMARKS), flags.runs))
    except (PoolError, OSError, RuntimeError) as error:
        print(f"the measurement failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if flags.json:
        plain = {name: outcome.plain() for name, outcome in outcomes.items()}
        flags.json.write_text(json.dumps({"machine": platform.platform()} | plain, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
