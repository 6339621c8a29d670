"""One fuzzer process: `python -m tests.fuzz.worker MODULE TARGET LIBFUZZER-ARGUMENT...`.

What is fuzzed is imported here with the fuzzer's own instruments in it, which is why this is a
process of its own. It ends with 0 when its time is over, with something else at the first input
that brings out anything but a `PoolError`, or takes too much memory or time; that input is then a
file.
"""

import contextlib
import importlib
import logging
import resource
import sys

import atheris

ROOM = 192 << 20
"""Bytes of memory that all inputs together may take beyond what there is at the beginning; the
fuzzer's own notes are part of it.
"""
_INSTRUMENTED = ["protocol", "python_multipart", "tests.fuzz.targets", "tests.fuzz.planted"]


def main(module: str, name: str, *arguments: str) -> None:
    """Fuzz until told otherwise; does not return."""
    with atheris.instrument_imports(include=_INSTRUMENTED):
        target = importlib.import_module(module).TARGETS[name]
    from protocol.errors import PoolError

    def once(data: bytes) -> None:
        with contextlib.suppress(PoolError):
            target(data)

    logging.disable()
    atheris.Setup([sys.argv[0], *arguments], once)
    used = next(
        int(line.split()[1]) << 10
        for line in open("/proc/self/status", encoding="ascii")  # noqa: SIM115
        if line.startswith("VmSize:")
    )
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
