"""Secrets do not show in logs: each is replaced by asterisks of equal length, so that offsets into
the log stay what they are; so is what base64 makes of it.

Secrets of less than four bytes are left alone: they are in everything.
"""

import base64
from collections.abc import Iterable, Iterator

_LEAST = 4  # bytes
_LINE = 76  # characters of a line of base64, by RFC 2045 and by base64(1)


class Mask:
    """What is to be hidden."""

    def __init__(self, secrets: Iterable[str]) -> None:
        values = {secret.encode("utf-8", "surrogatepass") for secret in secrets}
        values |= {value.rstrip(b"\r\n") for value in values}  # as $(cat FILE) has it
        values = {value for value in values if len(value) >= _LEAST}
        coded = {form for value in values for form in _in_base64(value)}
        self.hidden = tuple(sorted(values | coded))
        self.longest = max(map(len, self.hidden), default=0)

    def whole(self, data: bytes) -> bytes:
        """The data without what is to be hidden, where nothing that belongs to it comes before or
        after.
        """
        shown = bytearray(data)
        for secret in self.hidden:
            at = data.find(secret)
            while at >= 0:
                shown[at : at + len(secret)] = b"*" * len(secret)
                at = data.find(secret, at + 1)
        return bytes(shown)

    def text(self, words: str) -> str:
        """The same for a text, of equal length in bytes."""
        return self.whole(words.encode("utf-8", "replace")).decode("utf-8", "replace")

    def begun(self, data: bytes) -> int:
        """How many of the last bytes may be the beginning of a secret that has not ended."""
        most = 0
        for secret in self.hidden:
            at = data.find(secret[:1], max(0, len(data) - len(secret) + 1))
            while at >= 0 and len(data) - at > most:
                if secret.startswith(data[at:]):
                    most = len(data) - at
                    break
                at = data.find(secret[:1], at + 1)
        return most


class MaskedStream:
    """Data that comes in pieces, a secret perhaps in several."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._before = b""  # the last that was given out, unmasked
        self._held = b""

    @property
    def held(self) -> int:
        """Bytes that were taken and not yet given out."""
        return len(self._held)

    def take(self, data: bytes) -> bytes:
        """What can be shown now; the rest is held back."""
        self._held += data
        whole = self._before + self._held
        return self._give(len(self._held) - min(self._mask.begun(whole), len(self._held)))

    def rest(self) -> bytes:
        """What was held back: no more comes, or not for a while. Where a secret goes on after all,
        the rest of it is hidden.
        """
        return self._give(len(self._held))

    def _give(self, count: int) -> bytes:
        if not self._mask.hidden or count <= 0:
            given, self._held = self._held[:count], self._held[count:]
            return given
        whole = self._before + self._held
        shown = self._mask.whole(whole)
        start = len(self._before)
        self._before = whole[: start + count][-self._mask.longest :]
        self._held = self._held[count:]
        return shown[start : start + count]


def _in_base64(value: bytes) -> Iterator[bytes]:
    """As much of what base64 makes of it as is the same whatever comes before and after it: three
    forms, by what comes before, in both alphabets; and in lines, as programs print them.
    """
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            text = encode(bytes(before) + value)
            yield text[-(-before * 8 // 6) : (before + len(value)) * 8 // 6]
    text = base64.b64encode(value)[: len(value) * 8 // 6]
    yield b"\n".join(text[at : at + _LINE] for at in range(0, len(text), _LINE))
