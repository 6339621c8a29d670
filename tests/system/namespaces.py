"""Network namespaces for tests: made with names of our own, entered by threads, removed with all
that runs inside.

Names begin with a random prefix, held by a locked file: what a run that was killed left behind is
removed by the next one, and nothing else is.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")

_FAMILY = "iplan-"
_LOCKS = Path("/run/imagepool-lan")
_CLONE_NEWNET = 0x40000000
STEP = 30.0
"""Seconds that any single thing done to a namespace may take."""


class Inside:
    """A thread that has entered a namespace, with an event loop."""

    def __init__(self, namespace: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._entered: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=(namespace,), name=namespace)
        self._thread.start()
        self._entered.result(STEP)

    def _serve(self, namespace: str) -> None:
        try:
            _enter(namespace)
        except OSError as error:
            self._entered.set_exception(error)
            return
        asyncio.set_event_loop(self._loop)
        self._entered.set_result(None)
        self._loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """Its result; cancelled when the time is over."""
        running = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, seconds), self._loop)
        return running.result()

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STEP)
        self._loop.close()


@contextlib.contextmanager
def a_prefix() -> Iterator[str]:
    """A prefix of our own, its namespaces removed at the end; the file of its name is locked for as
    long as we live.
    """
    _LOCKS.mkdir(mode=0o700, exist_ok=True)
    while True:
        prefix = _FAMILY + secrets.token_hex(3)
        path = _LOCKS / prefix
        with path.open("xb") as file:
            if _locked(file) and os.fstat(file.fileno()).st_nlink:
                try:
                    yield prefix
                finally:
                    remove(prefix)
                    path.unlink()
                return


def sweep() -> None:
    """Remove the LANs of runs that are no more."""
    for path in _LOCKS.glob(f"{_FAMILY}*"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            if _locked(file):
                remove(path.name)
                path.unlink()


def _locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove(prefix: str) -> None:
    """Every namespace of this prefix, with whatever still runs inside."""
    for name in _namespaces(prefix):
        inside = subprocess.run(
            ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
        )
        for number in inside.stdout.split():
            if int(number) != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(number), signal.SIGKILL)
        ip(f"netns del {name}")


def _namespaces(prefix: str) -> list[str]:
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.glob(f"{prefix}-*"))


# The system's own ways


def entering(namespace: str, arguments: Sequence[str]) -> list[str]:
    """The command line that runs this one in the namespace."""
    return ["ip", "netns", "exec", namespace, *arguments]


def script_in(namespace: str, script: str) -> None:
    """Run a shell script in the namespace."""
    subprocess.run(
        entering(namespace, ["sh", "-ec", script]), check=True, timeout=STEP, capture_output=True
    )


def ip(*commands: str, namespace: str = "") -> None:
    """Commands of iproute2, all at once; they must succeed."""
    _batch("ip", commands, namespace)


def tc(*commands: str, namespace: str = "") -> None:
    """Commands of iproute2's tc, all at once; they must succeed."""
    _batch("tc", commands, namespace)


def _batch(program: str, commands: Sequence[str], namespace: str) -> None:
    where = ["-n", namespace] if namespace else []
    done = subprocess.run(
        [program, *where, "-batch", "-"],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        timeout=STEP,
        check=False,
    )
    assert done.returncode == 0, f"{program} {'; '.join(commands)}: {done.stderr}"


def _enter(namespace: str) -> None:
    """This thread is in the namespace from now on (Python 3.11 has no os.setns)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}", "rb") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), namespace)
