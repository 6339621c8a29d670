"""How thousands of secrets are looked for in a hundred megabytes at once.

Every form of every secret has GRAM bytes at each of STEP places one after the other, which are kept
in a table; then it is enough to look the text up there at every STEPth place. Forms too short for
that, words that people chose, are few and are looked for one by one.
"""

import base64
import os
import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote, quote_plus

LEAST = 8
"""Bytes of a secret that is searched for; shorter ones are words of tests."""
VARIED = 5
"""Different bytes of a secret that is searched for: sixteen zeros are in any file."""
GRAM, STEP = 8, 9
_PIECE = 4 << 20  # bytes that are searched at once
_LONGEST = 4096  # bytes of a form; of a longer one its beginning is looked for


class Secret(NamedTuple):
    """Something that nobody is to write."""

    data: bytes
    what: str
    text: bool  # it is characters; else bytes, which are written in some code only

    @classmethod
    def of(cls, secret: str | bytes, what: str, *, text: bool = False) -> "Secret | None":
        """None where nobody could tell it from a word, or from padding."""
        if isinstance(secret, str):
            secret, text = secret.encode("utf-8", "surrogateescape"), True
        plain = len(secret) < LEAST or len(set(secret)) < VARIED
        return None if plain else cls(secret, what, text)

    def forms(self) -> set[bytes]:
        """What it looks like where it was written: as it is, in hex, in base64 wherever in what was
        coded, quoted for a URL, escaped for JSON or Python.
        """
        data = self.data
        codes = {data.hex().encode(), data.hex().upper().encode(), *_base64(data)}
        codes.add(repr(data)[2:-1].encode())
        if self.text:
            text = data.decode("utf-8", "surrogateescape")
            codes.add(data)
            codes |= {quote(data, safe=safe).encode() for safe in ("", "/")}
            codes.add(quote_plus(data).encode())
            codes.add(repr(text)[1:-1].encode("utf-8", "surrogateescape"))
        else:
            codes |= {data, base64.b32encode(data).rstrip(b"=")[:-1]}
            codes.add(base64.b32encode(data).lower().rstrip(b"=")[:-1])
        return {code[:_LONGEST] for code in codes if len(code) >= LEAST}


class Leak(NamedTuple):
    """A secret that was written."""

    secret: Secret
    where: str  # what it was written by, or to
    test: str  # the test that ran then


class Written:
    """All that was written, in a file without a name."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - until `close`
        self._held = b""  # what could not be written yet: a test has the disk full
        self._starts = [0]
        self._places: list[tuple[str, str]] = [("", "")]  # (where, test), from each start on
        self.size = 0

    def add(self, data: bytes, where: str, test: str) -> None:
        """Something more; a line of its own."""
        if not data:
            return
        if self._places[-1] != (where, test):
            self._starts.append(self.size)
            self._places.append((where, test))
        # One call for each, unbuffered: threads write, and programs are forked.
        held, self._held = self._held + data + b"\n", b""
        self.size += len(data) + 1
        try:
            written = os.write(self._file.fileno(), held)
        except OSError:
            written = 0
        self._held = held[written:]

    def close(self) -> None:
        """Forget it."""
        self._file.close()

    def leaks(self, secrets: Iterable[Secret]) -> list[Leak]:
        """Every secret that is there, once for each place."""
        found: dict[Leak, None] = {}
        needles = Needles(secrets)
        self.add(b"-", "", "")  # with what is held
        assert not self._held
        for start in range(0, self.size, _PIECE):
            piece = os.pread(self._file.fileno(), _PIECE + _LONGEST, start)
            for at, secret in needles.within(piece):
                place = self._places[bisect_right(self._starts, start + at) - 1]
                found[Leak(secret, *place)] = None
        return list(found)


class Needles:
    """What is looked for."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._short: dict[bytes, Secret] = {}
        self._grams: Mapping[bytes, list[tuple[int, bytes, Secret]]]
        grams = defaultdict(list)
        for secret in secrets:
            for form in secret.forms():
                if len(form) < GRAM + STEP - 1:
                    self._short.setdefault(form, secret)
                else:
                    for offset in range(STEP):
                        grams[form[offset : offset + GRAM]].append((offset, form, secret))
        self._grams = grams

    def within(self, text: bytes) -> Iterator[tuple[int, Secret]]:
        """(where, what) of all that is in a text."""
        for form, secret in self._short.items():
            at = text.find(form)
            while at >= 0:
                yield at, secret
                at = text.find(form, at + 1)
        grams = self._grams
        for place in range(0, len(text) - GRAM + 1, STEP):
            if (gram := text[place : place + GRAM]) in grams:
                for offset, form, secret in grams[gram]:
                    if place >= offset and text.startswith(form, place - offset):
                        yield place - offset, secret


def _base64(data: bytes) -> Iterator[bytes]:
    """Its characters that do not depend on what stands before and behind it, for each place that it
    can have in what is coded.
    """
    for before in range(3):
        whole = len(data) + before
        sure = slice(-(-before * 8 // 6), whole * 8 // 6)
        for code in (base64.b64encode, base64.urlsafe_b64encode):
            yield code(bytes(before) + data)[sure]
