"""Which names of images may reach an engine."""

import pytest

from protocol.errors import Denied, Invalid
from protocol.model.checks import check_image

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    "name",
    [
        "debian",
        "debian:12",
        "codersos/linux-image-creator",
        "registry.example:5000/a/b_c/d-e.f:Tag_1.0",
        "localhost/x",
        "Example.org/x",
        f"debian@{DIGEST}",
        f"debian:12@{DIGEST}",
        DIGEST,
    ],
)
def test_names_that_an_engine_takes(name: str) -> None:
    """Also with a registry, a tag, a digest; the id of an image."""
    check_image(name, ("*",), "image")


@pytest.mark.parametrize(
    "name",
    [
        *("", "BAD//NAME", "a//b", "/a", "a/", "Debian", "a/B", "a:", ":a", "a:b:c", "a b", "-a"),
        *("a@", "a@sha256:1", "a..b", "a:-b", "a\n", "é", "a" * 256, "a.b/" * 80, "a/../b"),
        "--rm",
    ],
)
def test_names_that_no_engine_takes(name: str) -> None:
    """The node would find out when the build runs."""
    with pytest.raises(Invalid) as refused:
        check_image(name, ("*",), "image")
    assert refused.value.field == "image"


def test_the_operator_may_allow_fewer() -> None:
    """By patterns."""
    check_image("debian:12", ("debian:*",), "image")
    with pytest.raises(Denied):
        check_image("debian", ("debian:*",), "image")
