"""What defines the result of a build: where it starts from, what goes in, what is run, what comes
out.

Each kind of base, content and output is one class with a tag, `kind` on the wire. To add one: the
class, its name in the union, `protocol/model/checks.py`, and the part of `node/` that makes it
true.
"""

import re
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from protocol.wording import matching

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"  # of a host's name
_PART = "[a-z0-9]+(?:(?:[.]|__?|-+)[a-z0-9]+)*"  # of a repository's name
IMAGE_NAME = re.compile(
    rf"(?=.{{1,255}}\Z)(?:{_LABEL}(?:[.]{_LABEL})*(?::[0-9]{{1,5}})?/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,})?"
)
"""Names that may reach an engine, `[HOST[:PORT]/]NAME[:TAG][@DIGEST]` as it takes them; which of
them are allowed is the operator's setting.
"""

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=1 << 20)]
Url = Annotated[str, Meta(min_length=1, max_length=4096)]
Digest = Annotated[str, matching(r"^[0-9a-f]{64}$(?!\n)", "a SHA-256: 64 hex digits in lower case")]
Identity = Annotated[
    str, matching(r"^[0-9a-z]{1,64}$(?!\n)", "an id: up to 64 digits and lower-case letters")
]
EnvironmentName = Annotated[
    str,
    matching(
        r"^[A-Za-z_][A-Za-z0-9_]{0,255}$(?!\n)",
        "a variable's name: up to 256 letters, digits and _, no digit first",
    ),
]
SecretName = Annotated[
    str,
    matching(
        r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$(?!\n)",
        "a secret's name: up to 63 letters, digits and . _ -, the first one no . and no -",
    ),
]
FileName = Annotated[
    str,
    matching(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$(?!\n)",
        "a file name: up to 255 letters, digits and . _ -, a letter or digit first",
    ),
]
"""The name of an artifact: fit for a URL, a header and a file."""
InnerPath = Annotated[
    str,
    matching(
        r"^/[^\x00-\x1f\x7f]{0,4095}$(?!\n)",
        "an absolute path: / first, up to 4096 characters, none of them control characters",
    ),
]
"""An absolute path inside the container."""


class Command(Struct, frozen=True, forbid_unknown_fields=True):
    """One step of a build: a script with arguments. Exactly one of text and URL says what is
    run.
    """

    name: Name
    text: Text | None = None  # saved to /tmp/command, made executable, run
    url: Url | None = None  # where the node fetches the text
    arguments: Annotated[tuple[Text, ...], Meta(max_length=1024)] = ()
    environment: dict[EnvironmentName, Text] = msgspec.field(default_factory=dict)
    time_limit: Annotated[float, Meta(gt=0, le=30 * 86400)] | None = None  # seconds


# Where bytes come from


class TextContent(Struct, frozen=True, tag_field="kind", tag="text", forbid_unknown_fields=True):
    """The text itself, in UTF-8."""

    text: Text


class UploadedContent(
    Struct, frozen=True, tag_field="kind", tag="upload", forbid_unknown_fields=True
):
    """Bytes that were uploaded before, or with the request; named by their digest."""

    sha256: Digest


class FetchedContent(Struct, frozen=True, tag_field="kind", tag="url", forbid_unknown_fields=True):
    """Bytes that the node fetches."""

    url: Url
    sha256: Digest | None = None  # what they must have; None: whatever comes


class ArtifactContent(
    Struct, frozen=True, tag_field="kind", tag="artifact", forbid_unknown_fields=True
):
    """An artifact of an earlier build, on whatever node that lies."""

    build: Identity
    name: FileName
    sha256: Digest | None = None  # filled in when the build is accepted


Content: TypeAlias = TextContent | UploadedContent | FetchedContent | ArtifactContent


class InputFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A file that the build finds, read-only: an input under `/inbox/`, or a part of a Dockerfile's
    context.
    """

    name: Annotated[str, Meta(min_length=1, max_length=1024)]  # a relative path, / between parts
    content: Content
    executable: bool = False


# Where a build starts from


class ImageBase(Struct, frozen=True, tag_field="kind", tag="image", forbid_unknown_fields=True):
    """A container image of a registry or of the node. Without a name: the base image that the node
    is set to.
    """

    name: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    pull: Literal["missing", "always", "never"] = "missing"
    credentials: SecretName | None = None  # a secret `USER:PASSWORD` for the registry


class DockerfileBase(
    Struct, frozen=True, tag_field="kind", tag="dockerfile", forbid_unknown_fields=True
):
    """An image that the node builds from a Dockerfile first. The Dockerfile is given, with the
    files of its context; or it is found in an archive that is the whole context.
    """

    dockerfile: Content | None = None
    context: Annotated[tuple[InputFile, ...], Meta(max_length=1024)] = ()
    archive: Content | None = None  # a tar file, compressed or not
    path: Annotated[str, Meta(min_length=1, max_length=1024)] = "Dockerfile"  # in the archive
    no_cache: bool = False
    pull: bool = False  # ask the registry for a newer image of FROM


class DownloadBase(
    Struct, frozen=True, tag_field="kind", tag="download", forbid_unknown_fields=True
):
    """A base image that is downloaded. Of a `rootfs` (a tar file, compressed or not) the node makes
    the image; a `qcow2` (or any disk) is found, read-only, at `/inbox/NAME`, and the container is
    of the image in `tools`.
    """

    content: FetchedContent | UploadedContent | ArtifactContent
    format: Literal["rootfs", "qcow2"] = "rootfs"
    name: FileName = "base.qcow2"  # of a disk under /inbox/
    tools: Annotated[str, Meta(min_length=1, max_length=255)] | None = None  # None: as ImageBase


class BuiltBase(Struct, frozen=True, tag_field="kind", tag="build", forbid_unknown_fields=True):
    """The image that an earlier build made (`ImageOutput`), on whatever node that lies."""

    build: Identity
    name: FileName = "image.tar"
    sha256: Digest | None = None  # filled in when the build is accepted


Base: TypeAlias = ImageBase | DockerfileBase | DownloadBase | BuiltBase


# What comes out


class IsoOutput(Struct, frozen=True, tag_field="kind", tag="iso", forbid_unknown_fields=True):
    """The result is the file that `/toiso/iso_path.sh` of the image names."""


class PathsOutput(Struct, frozen=True, tag_field="kind", tag="paths", forbid_unknown_fields=True):
    """The regular files that these absolute paths or shell patterns name inside the container; each
    must match one at least.
    """

    paths: Annotated[tuple[InnerPath, ...], Meta(min_length=1, max_length=64)]


class OutboxOutput(Struct, frozen=True, tag_field="kind", tag="outbox", forbid_unknown_fields=True):
    """Everything under `/outbox/`, as one zip."""

    name: FileName = "outbox.zip"


class StreamOutput(Struct, frozen=True, tag_field="kind", tag="stream", forbid_unknown_fields=True):
    """What the last command writes to its standard output, served while it is written; its standard
    error goes to the log.
    """

    name: FileName = "stream.bin"
    pipe: bool = False  # not kept: one reader, whose pace the command goes by


class ImageOutput(Struct, frozen=True, tag_field="kind", tag="image", forbid_unknown_fields=True):
    """The base itself, as an image for later builds; there are no commands.

    `docker`: what `docker load` reads; `rootfs`: the file system, a tar file.
    """

    format: Literal["docker", "rootfs"] = "docker"
    name: FileName = "image.tar"


class NoOutput(Struct, frozen=True, tag_field="kind", tag="none", forbid_unknown_fields=True):
    """The build makes no file; its log is its result."""


Output: TypeAlias = IsoOutput | PathsOutput | OutboxOutput | StreamOutput | ImageOutput | NoOutput


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """What defines the result of a build."""

    commands: Annotated[tuple[Command, ...], Meta(max_length=256)] = ()
    base: Base = ImageBase()
    inputs: Annotated[tuple[InputFile, ...], Meta(max_length=1024)] = ()
    output: Output = IsoOutput()
    keep_going: bool = False  # run the commands that follow a failed one
