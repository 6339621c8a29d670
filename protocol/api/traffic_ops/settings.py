"""The family's settings: a table in each program's."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from protocol.model.recipe import Base, ImageBase, InnerPath
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
    base: Base = ImageBase("imagepool/installer")  # of the container in which they are made
    # In the container: base.iso; or isolinux/ and ks_scripts/; or ks_scripts/ and generate.
    folder: InnerPath = "/os"


_OURS = {"debian12": OsVersion("Debian 12")}


class TrafficOpsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The table `traffic_ops` of a program's settings."""

    os_versions: dict[Directory, OsVersion] = msgspec.field(
        default_factory=lambda: dict(_OURS)
    )  # what installer ISOs are made of, by osversionDir
    keep: Annotated[float, Meta(gt=0)] = 7 * 86400.0  # seconds that an isoURL is good for
    name_servers: tuple[str, ...] = ()  # addresses for installed machines; none: our own ones
