"""What a request takes from elsewhere: whether it is there, and which digest the artifacts of
earlier builds have that it names.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable

from protocol.errors import Conflict, Invalid, NotFound
from protocol.model.build import Artifact, Build, Stage, artifact_named
from protocol.model.recipe import UploadedContent
from protocol.model.request import BuildRequest, Reference, contents, resolved, uploads

Find = Callable[[str], Build]
"""A build by its id; raises NotFound."""
Missing = Callable[[Collection[str]], Awaitable[frozenset[str]]]
"""Which of these digests are not here."""


def resolve(request: BuildRequest, find: Find, here: Collection[str] = ()) -> BuildRequest:
    """The request with the digest of each artifact that it names. A digest that is given with the
    name, and `here`, needs no build that we know.

    Raises NotFound, Conflict (the build has not stopped, or has another artifact of this name), and
    names the field.
    """

    def digest(field: str, reference: Reference) -> str:
        if reference.sha256 is not None and reference.sha256 in here:
            return reference.sha256
        return _artifact(field, reference, find).sha256

    return resolved(request, digest)


def _artifact(field: str, reference: Reference, find: Find) -> Artifact:
    try:
        build = find(reference.build)
    except NotFound as error:
        raise NotFound(error.detail, field=f"{field}.build", expected="a known build") from error
    if build.stage is not Stage.STOPPED:
        raise Conflict(
            f"build {build.id} is {build.state.value}",
            field=f"{field}.build",
            expected="a build that has stopped",
        )
    try:
        artifact = artifact_named(build.artifacts, reference.name)
    except NotFound as error:
        raise NotFound(
            error.detail, field=f"{field}.name", expected="an artifact of that build"
        ) from error
    if artifact.growing or not artifact.kept:
        raise Conflict(
            f"the artifact {artifact.name} is not whole, or was not kept",
            field=f"{field}.name",
            expected="an artifact that can be had",
        )
    if reference.sha256 not in (None, artifact.sha256):
        raise Conflict(
            f"the artifact {artifact.name} has the digest {artifact.sha256}",
            field=f"{field}.sha256",
            expected=f"{artifact.sha256}, or none",
        )
    return artifact


def check_given(request: BuildRequest, missing: Collection[str]) -> None:
    """Raises Invalid for an upload, NotFound for an artifact, whose bytes are missing; names the
    field.
    """
    for field, content in contents(request):
        if getattr(content, "sha256", None) not in missing:
            continue
        if isinstance(content, UploadedContent):
            raise Invalid(
                f"nothing with the digest {content.sha256} was uploaded here, or it is too old",
                field=f"{field}.sha256",
                expected="the digest of an upload",
            )
        if isinstance(content, Reference):
            raise NotFound(
                f"the artifact {content.name} of build {content.build} is not kept any more",
                field=field,
                expected="an artifact that can be had",
            )


async def provided(
    request: BuildRequest,
    find: Find,
    missing: Missing,
    *,
    sent: frozenset[str] = frozenset(),
    needed: Callable[[BuildRequest], frozenset[str]],
) -> BuildRequest:
    """The request with all digests, whose `needed` bytes are here. `sent`: digests of what may have
    been sent before the request, and need not be an artifact that we know. Raises Invalid,
    NotFound, Conflict.
    """
    request = resolve(request, find, sent - await missing(sent))
    check_given(request, await missing(needed(request)))
    return request


def still_needed(builds: Iterable[Build]) -> frozenset[str]:
    """Digests of all that builds take from elsewhere which have not stopped."""
    live = (build for build in builds if build.stage is not Stage.STOPPED)
    return frozenset().union(*(uploads(build.request) for build in live))


def uploaded(request: BuildRequest) -> frozenset[str]:
    """Digests of what clients uploaded."""
    return frozenset(
        content.sha256 for _, content in contents(request) if isinstance(content, UploadedContent)
    )


def filled_like(request: BuildRequest, known: BuildRequest) -> BuildRequest:
    """The request as it would be with the digests that `known` has: to compare the two."""
    digests = {
        (content.build, content.name): content.sha256
        for _, content in contents(known)
        if isinstance(content, Reference)
    }

    def digest(field: str, reference: Reference) -> str:
        return reference.sha256 or digests.get((reference.build, reference.name)) or ""

    return resolved(request, digest)
