"""Figures in words: durations, sizes, moments, ids. Pure: whoever wants an age subtracts.

Nodes state many of these figures, so none is trusted to be sensible: no number makes a function
here raise.
"""

from datetime import UTC, datetime

_LONGEST = 1e10  # seconds; some 300 years, beyond any figure that means something
_LAST_MOMENT = 253402300799.0  # the end of the year 9999, the last that datetime can say
_PREFIXES = "KMGTPE"
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def duration(seconds: float) -> str:
    """The two largest units of it: `0.4 s`, `12 s`, `3 min 5 s`, `2 h`, `4 d 3 h`.

    >>> duration(187)
    '3 min 7 s'
    """
    seconds = min(seconds, _LONGEST) if seconds > 0 else 0.0
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    left = int(seconds)
    parts: list[str] = []
    for unit, length in _UNITS:
        if left >= length or parts:
            parts.append(f"{left // length} {unit}" if left >= length else "")
            left %= length
    return " ".join(filter(None, parts[:2])) or "0 s"


def ago(seconds: float) -> str:
    """An age: `just now`, `12 s ago`, `3 min ago`. One unit: from afar the second says nothing."""
    seconds = min(seconds, _LONGEST) if seconds > 0 else 0.0
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{int(seconds) // length} {unit} ago"
    return "just now"


def latency(seconds: float) -> str:
    """How long an answer took: `<1 ms`, `3.2 ms`, `45 ms`, `1.2 s`."""
    milliseconds = 1000 * (min(seconds, _LONGEST) if seconds > 0 else 0.0)
    if milliseconds < 1:
        return "<1 ms"
    if milliseconds < 9.95:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds:.0f} ms" if milliseconds < 999.5 else duration(milliseconds / 1000)


def size(count: int) -> str:
    """Bytes in binary units: `512 B`, `1.5 KiB`, `350 MiB`, `2.0 GiB`.

    >>> size(350 << 20)
    '350 MiB'
    """
    if count < 1024:
        return f"{max(0, count)} B"
    value, prefix = count / 1024, 0
    while value >= 1023.5 and prefix < len(_PREFIXES) - 1:
        value, prefix = value / 1024, prefix + 1
    digits = 1 if value < 9.95 else 0
    return f"{value:.{digits}f} {_PREFIXES[prefix]}iB"


def moment(at: float) -> str:
    """Seconds since the epoch as `2025-11-21 02:00:13 UTC`; empty where no calendar has it."""
    if not 0 <= at <= _LAST_MOMENT:
        return ""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def short_node(identity: str) -> str:
    """The head of a node's id, which is a fingerprint."""
    return identity[:8]


def short_build(identity: str) -> str:
    """The tail of a build's id: its head is the time, the same for all builds of one minute."""
    return identity[-8:]


def clipped(text: str, length: int) -> str:
    """The text on one line, and no longer than this."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
