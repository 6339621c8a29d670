"""What the native API shows: the values of the model, with what follows from them."""

from msgspec import Struct
from msgspec.structs import asdict

from protocol.model.build import Artifact, Build, CommandStatus, State
from protocol.model.messages import Changes


class CommandView(CommandStatus, frozen=True, kw_only=True):
    """What became of one command, with its documented status code."""

    status: State


class BuildView(Build, frozen=True, kw_only=True):
    """A build as the API shows it: its fields, and the documented status code that follows from
    its stage.
    """

    status: State
    commands: tuple[CommandView, ...] = ()


class BuildList(Struct, frozen=True):
    """Some builds of a list."""

    builds: tuple[BuildView, ...]
    next: str  # cursor of the next page; empty: this is the last one


class ChangesPage(Changes, frozen=True, kw_only=True):
    """The builds that changed since a cursor."""

    builds: tuple[BuildView, ...]


class ArtifactList(Struct, frozen=True):
    """What a build made."""

    artifacts: tuple[Artifact, ...]


def view(build: Build) -> BuildView:
    """A build as the API shows it."""
    commands = tuple(
        CommandView(**asdict(command), status=command.state) for command in build.commands
    )
    return BuildView(**{**asdict(build), "commands": commands}, status=build.state)
