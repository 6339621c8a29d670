"""The parts that lines of the page are made of: links, folded lists, reasons, bars. Pure."""

from msgspec import Struct

from scheduler.web import words

SEGMENTS = 10
"""Up to so many slots are drawn one by one."""
_REASON = 110  # characters of a reason that are shown before it folds
_SHOWN = 4  # labels, builds and downloads that are shown before the rest folds


class Segment(Struct, frozen=True):
    """A piece of the bar of slots, which is 100 wide."""

    x: float
    width: float
    used: bool


class Folded(Struct, frozen=True):
    """Some things at once, the rest when asked."""

    first: tuple["Link", ...]
    rest: tuple["Link", ...]


class Link(Struct, frozen=True):
    """A text, and where it leads."""

    text: str
    href: str = ""  # empty: nowhere
    title: str = ""  # said when pointed at
    note: str = ""  # said beside it


class Reason(Struct, frozen=True):
    """A sentence; where it is long, its beginning and the whole."""

    text: str
    whole: str = ""


def bar(used: int, slots: int) -> tuple[Segment, ...]:
    """The slots as a bar: a piece each while they are few, else the used ones and the rest."""
    if slots <= 0:
        return ()
    used = max(0, min(used, slots))
    if slots > SEGMENTS:
        filled = round(100 * used / slots, 2)
        return (Segment(0, filled, True), Segment(filled, round(100 - filled, 2), False))
    gap = 4
    width = (100 - gap * (slots - 1)) / slots
    return tuple(
        Segment(round(index * (width + gap), 2), round(width, 2), index < used)
        for index in range(slots)
    )


def folded(links: tuple[Link, ...]) -> Folded:
    """The first few, and the rest; one alone is not worth folding."""
    at = _SHOWN if len(links) > _SHOWN + 1 else len(links)
    return Folded(links[:at], links[at:])


def reason(text: str) -> Reason:
    """A reason as it is shown."""
    short = words.clipped(text, _REASON)
    return Reason(short, text[:4096] if short.endswith("…") else "")


def status_link(identity: str, base: str) -> Link:
    """A build by its short id, leading to its status."""
    return Link(words.short_build(identity), f"{base}/status/{identity}", identity)
