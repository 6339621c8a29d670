"""Which media type a client gets, of those that there are: by its Accept header (RFC 9110,
12.5.1).
"""

from collections.abc import Iterable

SSE = "text/event-stream"
PLAIN = "text/plain"


def preferred(accept: str, offered: Iterable[str]) -> str | None:
    """The one of these that the client likes best, the first of several; None where it takes none.
    Without a header it takes all.
    """
    ranges = dict(_quality(part) for part in accept.split(",") if part.strip())
    if not ranges:
        return next(iter(offered), None)
    liked = [(_liking(media_type, ranges), media_type) for media_type in offered]
    best = max((quality for quality, _ in liked), default=0.0)
    return next((name for quality, name in liked if quality == best and best > 0), None)


def _liking(media_type: str, ranges: dict[str, float]) -> float:
    """The most exact of what was said counts."""
    for said in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        if said in ranges:
            return ranges[said]
    return 0.0


def _quality(part: str) -> tuple[str, float]:
    """`text/html;q=0.8` -> ("text/html", 0.8). What cannot be read is not wanted."""
    media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = float(parameter[2:])
            except ValueError:
                return media_type, 0.0
            return media_type, quality if 0 <= quality <= 1 else 0.0
    return media_type, 1.0
