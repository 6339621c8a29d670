"""What the engine is asked to start for an attempt, and how what it shows reads as a build's
commands.
"""

from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path

from msgspec import Struct

from node.config import NodeSettings
from node.core.outcome import added_step
from node.engines.base import ContainerSpec, Engine, Limits, Mount
from node.files.artifacts import ArtifactStore
from node.files.secrets_folder import SecretsFolder
from node.files.workfolder import Step, WorkFolder
from node.network.outlet import Outlet
from node.records import Stop
from protocol.model.build import Build, CommandStatus, NodeReference, tagged
from protocol.model.build import image_of as image_of_build
from protocol.model.request import Needs, Secrets
from protocol.storage.blob_folder import BlobFolder

LABEL = "imagepool"
"""Prefix of the labels by which a node knows its containers and images."""
BUILD_IMAGE = "build the image"
"""Name of the step that the node adds where it makes an image of a Dockerfile."""


class Place(Struct, frozen=True):
    """What a builder works with."""

    node: NodeReference
    settings: NodeSettings
    engine: Engine
    outlet: Outlet  # the network of builds that have one
    long: Executor  # threads for calls of the engine that take as long as a build does
    artifacts: ArtifactStore
    blobs: BlobFolder  # uploads, and artifacts of other builds
    work: Path
    inputs: Path  # one folder for each attempt that has inputs
    secrets: SecretsFolder
    secrets_of: Callable[[str], Secrets]  # of a build that has not stopped
    clock: Callable[[], float]
    publish: Callable[[Build], None]  # every change of the build, to be seen
    keep: Callable[[Build, Stop | None], Awaitable[None]]  # to be on disk; raises Unavailable
    used_image: Callable[[str, bool], Awaitable[None]]  # a build uses it; whether it was pulled
    look: Callable[[], Awaitable[None]]  # at the engine, for what the node says of itself
    doubt: Callable[[], Awaitable[None]]  # the engine ended a container by itself
    disk_problem: Callable[[], str]  # that the disk is full now; empty where it is not
    away: Callable[[str], str]  # why nobody watched a build's container end


def image_of(place: Place, build: Build) -> str:
    """The image that the build's container is of, with its tag or digest."""
    return image_of_build(build) or tagged(place.settings.base_image)


def container_spec(
    place: Place,
    build: Build,
    folder: WorkFolder,
    *,
    mounts: tuple[Mount, ...],
    environment: Mapping[str, str],
) -> ContainerSpec:
    """What the engine is asked to start for an attempt; mounts and environment beside those of the
    work folder.
    """
    return ContainerSpec(
        name=f"imagepool-{place.node.id[:8]}-{build.id}-{build.attempt}",
        image=image_of(place, build),
        entrypoint=folder.entrypoint,
        environment={
            "IMAGEPOOL_BUILD": build.id,
            "IMAGEPOOL_NODE": place.node.name,
            **environment,
        },
        labels=labels(place.node.id, build.id, build.attempt),
        mounts=(*folder.mounts, *mounts),
        limits=limits(build.request.guidance.needs, place.settings, place.outlet.bridge),
        capabilities=place.settings.capabilities,
    )


def labels(node: str, build: str, attempt: int) -> dict[str, str]:
    """The labels of an attempt's container."""
    return {f"{LABEL}.node": node, f"{LABEL}.build": build, f"{LABEL}.attempt": str(attempt)}


def limits(needs: Needs, settings: NodeSettings, bridge: str = "") -> Limits:
    """What the build asks for, within what the node allows; `bridge`: the network it is on, if
    any.
    """
    return Limits(
        memory=min(needs.memory or settings.memory, settings.memory),
        cpus=min(needs.cpus or settings.cpus, settings.cpus or needs.cpus or 0),
        processes=min(needs.processes or settings.processes, settings.processes),
        network=needs.network and settings.build_network != "none",
        bridge=bridge,
        swap=settings.swap,
        file_size=settings.file_size,
        open_files=settings.open_files,
    )


def statuses(build: Build, steps: tuple[Step, ...], base: int) -> tuple[CommandStatus, ...]:
    """The commands as the work folder shows them, and what the node added before the container
    was there; `base`: where in the served log the container's begins.
    """
    names = [command.name for command in build.request.recipe.commands]
    statuses = [CommandStatus(name) for name in names]
    for step in steps:
        added = step.index >= len(names)
        if added and step.start is None:
            continue
        status = CommandStatus(
            added_step(build.request.recipe.output) if added else names[step.index],
            start=None if step.start is None else base + step.start,
            end=None if step.end is None else base + step.end,
            exit_code=step.exit_code,
            added=added,
        )
        if added:
            statuses.append(status)
        else:
            statuses[step.index] = status
    made = (command for command in build.commands if command.added and command.name == BUILD_IMAGE)
    return (*statuses, *made)
