"""The family's settings: a table in each program's."""

from collections import Counter
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from protocol.model.recipe import Base, ImageBase, InnerPath
from protocol.model.request import Label
from protocol.wording import matching

Directory = Annotated[
    str,
    matching(
        r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$(?!\n)",
        "a directory's name: letters, digits and . _ -, / between parts",
    ),
    Meta(max_length=64),
]
"""What a request calls an OS version."""


class OsVersion(Struct, frozen=True, forbid_unknown_fields=True):
    """What installer images of one OS version are made of."""

    title: Annotated[str, Meta(min_length=1, max_length=128)]  # as people choose it
    base: Base  # of the container in which they are made
    # In the container: base.iso; or isolinux/ and ks_scripts/; or ks_scripts/ and generate.
    folder: InnerPath = "/os"
    labels: tuple[Label, ...] = ()  # of the nodes that make them; none: all


Address = Annotated[str, matching(r"^[0-9A-Fa-f:.]{2,45}$(?!\n)", "an address, of IPv4 or IPv6")]

# Never from a registry: none has an image of this name that is ours.
_OURS = {"debian12": OsVersion("Debian 12", ImageBase("imagepool/installer", pull="never"))}


class TrafficOpsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The table `traffic_ops` of a program's settings. Raises ValueError where two OS versions
    could not be told from each other.
    """

    os_versions: dict[Directory, OsVersion] = msgspec.field(
        default_factory=lambda: dict(_OURS)
    )  # what installer ISOs are made of, by osversionDir
    keep: Annotated[float, Meta(gt=0)] = 7 * 86400.0  # seconds that an isoURL is good for
    time_limit: Annotated[float, Meta(gt=0)] = 3600.0  # seconds to make one, and to send it
    name_servers: tuple[Address, ...] = ()  # addresses for installed machines; none: our own ones

    def __post_init__(self) -> None:
        titles = Counter(version.title for version in self.os_versions.values())
        files = Counter(map(file_part, self.os_versions))
        for given, what in ((titles, "title"), (files, "file name")):
            for text, times in given.items():
                if times > 1:
                    raise ValueError(f"os_versions: {times} have the {what} {text!r}")


def file_part(directory: str) -> str:
    """What an ISO's file name has of its OS version's directory."""
    return directory.replace("/", "_")
