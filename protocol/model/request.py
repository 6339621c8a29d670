"""What a client asks for, in three values: what defines the result (`protocol/model/recipe.py`),
what only guides its way through the pool, and what is secret.

Secrets are apart on purpose: a request is shown, listed and reported, and holds their names only.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from protocol.model.recipe import (
    ArtifactContent,
    BuiltBase,
    Content,
    DockerfileBase,
    DownloadBase,
    FetchedContent,
    Identity,
    InputFile,
    Recipe,
    SecretName,
    TextContent,
    Url,
)
from protocol.wording import matching

Label = Annotated[
    str,
    matching(r"^[A-Za-z0-9._/-]{1,63}$(?!\n)", "a label: 1 to 63 letters, digits and . _ / -"),
]
LabelValue = Annotated[str, Meta(max_length=256)]


class Needs(Struct, frozen=True, forbid_unknown_fields=True):
    """What a build must have on its node, and may use there at most. None: as the node is set."""

    architecture: Annotated[str, Meta(max_length=32)] | None = None  # as `uname -m` says it
    labels: Annotated[tuple[Label, ...], Meta(max_length=64)] = ()  # the node must carry them all
    cpus: Annotated[float, Meta(gt=0, le=1024)] | None = None
    memory: Annotated[int, Meta(ge=16 << 20, le=1 << 50)] | None = None  # bytes
    disk: Annotated[int, Meta(ge=0, le=1 << 60)] | None = None  # bytes free on the node
    processes: Annotated[int, Meta(ge=2, le=1 << 22)] | None = None
    network: bool = True
    time_limit: Annotated[float, Meta(gt=0, le=30 * 86400)] | None = None  # seconds


class Notice(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is told of each change of the build's state."""

    url: Url | None = None  # gets a POST of the build
    secret: SecretName | None = None  # the key that signs it; the build does not get it
    exchange: Annotated[str, Meta(min_length=1, max_length=255)] | None = None  # of AMQP


class Guidance(Struct, frozen=True, forbid_unknown_fields=True):
    """What guides a build's way and does not change the result."""

    needs: Needs = Needs()
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0  # higher is built earlier
    labels: Annotated[dict[Label, LabelValue], Meta(max_length=64)] = msgspec.field(
        default_factory=dict
    )
    note: Annotated[str, Meta(max_length=4096)] = ""
    notices: Annotated[tuple[Notice, ...], Meta(max_length=8)] = ()
    cancel_url: Url | None = None  # asked from time to time whether the build is still wanted
    keep: Annotated[float, Meta(ge=0, le=10 * 366 * 86400)] | None = None
    # seconds for which log and artifacts are kept after the end; None: as the node is set


class BuildRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a client asks for, without what is secret."""

    recipe: Recipe = Recipe()
    guidance: Guidance = Guidance()
    secrets: Annotated[tuple[SecretName, ...], Meta(max_length=64)] = ()  # names, in order


Secrets: TypeAlias = dict[SecretName, Annotated[str, Meta(min_length=1, max_length=64 << 10)]]
"""Values by name. A build finds each as a file in the folder that $IMAGEPOOL_SECRETS names."""


class Order(Struct, frozen=True, forbid_unknown_fields=True):
    """A create as the native API takes it."""

    recipe: Recipe = Recipe()
    guidance: Guidance = Guidance()
    secrets: Annotated[Secrets, Meta(max_length=64)] = msgspec.field(default_factory=dict)

    @property
    def request(self) -> BuildRequest:
        """All of it but the secrets' values."""
        return BuildRequest(self.recipe, self.guidance, tuple(sorted(self.secrets)))


class Forward(Struct, frozen=True):
    """What a scheduler adds to a request that it gives to a node: which attempt this is, and the
    way it came.
    """

    id: Identity
    origin: Identity  # the program that placed this attempt, and will ask after it
    attempt: Annotated[int, Meta(ge=1)]
    owner: str = ""
    path: Annotated[tuple[Identity, ...], Meta(max_length=16)] = ()  # schedulers it came by
    store: str = ""  # id of the origin's store, which has this attempt on record
    key: str = ""  # idempotency key of the create, so that it outlives the origin's store
    retry_of: str = ""  # the build's, likewise
    seal: Annotated[str, Meta(max_length=64)] = ""  # by which the origin knows it again


Reference: TypeAlias = ArtifactContent | BuiltBase
"""What names an artifact of an earlier build."""


def signing_secrets(request: BuildRequest) -> frozenset[str]:
    """Names of the secrets that sign notices. They stay with the program that sends these: neither
    a node nor the build gets them.
    """
    return frozenset(n.secret for n in request.guidance.notices if n.secret is not None)


def given_secrets(request: BuildRequest, secrets: Secrets) -> Secrets:
    """Those that the build itself gets."""
    return {name: secrets[name] for name in secrets.keys() - signing_secrets(request)}


def contents(request: BuildRequest) -> Iterator[tuple[str, Content | BuiltBase]]:
    """Everything that the build takes from elsewhere, each with the path of its field."""
    recipe = request.recipe
    match recipe.base:
        case DockerfileBase() as base:
            for name, content in (("dockerfile", base.dockerfile), ("archive", base.archive)):
                if content is not None:
                    yield f"recipe.base.{name}", content
            for index, file in enumerate(base.context):
                yield f"recipe.base.context[{index}].content", file.content
        case DownloadBase() as base:
            yield "recipe.base.content", base.content
        case BuiltBase() as base:
            yield "recipe.base", base
    for index, file in enumerate(recipe.inputs):
        yield f"recipe.inputs[{index}].content", file.content


def uploads(request: BuildRequest) -> frozenset[str]:
    """Digests of all that a node must have been given before it can begin."""
    digests = (getattr(content, "sha256", None) for _, content in _given(request))
    return frozenset(digest for digest in digests if digest)


def resolved(request: BuildRequest, digest: Callable[[str, Reference], str]) -> BuildRequest:
    """The request with the digest of each artifact that it names; `digest` is given the path of the
    field, and answers it or raises.
    """
    found = {
        (content.build, content.name): digest(field, content)
        for field, content in contents(request)
        if isinstance(content, Reference)
    }

    def filled(content: Any) -> Any:
        if not isinstance(content, Reference):
            return content
        return replace(content, sha256=found[content.build, content.name])

    def files(given: tuple[InputFile, ...]) -> tuple[InputFile, ...]:
        return tuple(replace(file, content=filled(file.content)) for file in given)

    recipe = request.recipe
    base = filled(recipe.base)
    if isinstance(base, DockerfileBase):
        given = {"dockerfile": filled(base.dockerfile), "archive": filled(base.archive)}
        base = replace(base, **given, context=files(base.context))
    elif isinstance(base, DownloadBase):
        base = replace(base, content=filled(base.content))
    return replace(request, recipe=replace(recipe, base=base, inputs=files(recipe.inputs)))


def _given(request: BuildRequest) -> Iterator[tuple[str, Content | BuiltBase]]:
    return (
        (field, content)
        for field, content in contents(request)
        if not isinstance(content, TextContent | FetchedContent)
    )
