"""Which images a Dockerfile takes from elsewhere, so that the operator's patterns hold for them as
for the image of any other build.

It is read as the engine's classic builder reads it, as far as that goes without running it: what
cannot be told for certain, or what versions of it read differently, is an error: a variable in a
name, another escape character, a here-document, white space that is none to everybody.
"""

import re
from collections.abc import Iterator

_ESCAPE = re.compile(r"^\s*#\s*escape\s*=", re.IGNORECASE | re.MULTILINE)
_ODD = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
    r"|\r(?!\n|\Z)|\\\\[ \t]*\r?$",
    re.MULTILINE,
)
_GOES_ON = re.compile(r"\\[ \t]*$")
_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*", re.IGNORECASE)
_TAKES = re.compile(r"(?:ONBUILD\s+)*(?:COPY|ADD)\s(.*)", re.IGNORECASE)
_WHENCE = re.compile(r"--from=(\S*)", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]*")


class Unclear(ValueError):
    """It cannot be told which images it takes; the text says why."""


def images(text: str) -> tuple[str, ...]:
    """Names of all images that it takes, as they are written. Raises Unclear."""
    if _ESCAPE.search(text):
        raise Unclear("the Dockerfile has an escape character of its own")
    if odd := _ODD.search(text):
        raise Unclear(f"the Dockerfile has {odd[0]!r} in it")
    return tuple(dict.fromkeys(_images(text)))


def _images(text: str) -> Iterator[str]:
    stages: list[str] = []
    for line in _instructions(text):
        if "<<" in line:
            raise Unclear("the Dockerfile has a here-document")
        if line[:4].upper() == "FROM":
            found = _FROM.fullmatch(line)
            if found is None:
                raise Unclear(f"{line[:80]!r} is not understood")
            if found[1].lower() not in stages:
                yield from _name(found[1])
            stages.append((found[2] or "").lower())
        elif takes := _TAKES.fullmatch(line):
            for whence in _WHENCE.findall(takes[1]):
                if whence.lower() not in (*stages, *map(str, range(len(stages)))):
                    yield from _name(whence)


def _name(name: str) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        raise Unclear(f"{name[:80]!r} is no plain name of an image")
    if name != "scratch":
        yield name


def _instructions(text: str) -> Iterator[str]:
    """Lines as the builder joins them: comments and empty lines go, also within what goes on."""
    joined = ""
    for line in text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        part = line if joined else line.lstrip()
        if _GOES_ON.search(part):
            joined += _GOES_ON.sub("", part)
            continue
        yield (joined + part).strip()
        joined = ""
    if joined:
        yield joined.strip()
