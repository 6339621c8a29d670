"""Takes what a build made, when its container has ended: into the node's own files, with names,
sizes and digests. Whether the build ended well is decided in `node/core/outcome.py`.
"""

import threading
from functools import partial
from pathlib import Path

from msgspec import Struct

from node.container import Place
from node.core.naming import artifact_names
from node.core.outcome import Ending, outcome
from node.engines.base import Exit
from node.files.logs import ServedLog
from node.files.workfolder import WorkFolder
from node.outputs.packing import Bounds, pack
from protocol.model.build import Artifact, Build
from protocol.model.lifecycle import Event
from protocol.model.recipe import IsoOutput, OutboxOutput, PathsOutput, StreamOutput


class Collected(Struct, frozen=True):
    """What there is: all of it or nothing."""

    artifacts: tuple[Artifact, ...] = ()
    problem: str = ""  # why there is nothing, where that is known


class Collecting(Struct, frozen=True):
    """The end of one attempt."""

    place: Place
    build: Build
    folder: WorkFolder
    log: ServedLog
    read: Artifact | None  # what the reader of a FIFO has had, in whole
    stop: threading.Event  # it is to be given up

    def all(self) -> Collected:
        """Take everything. Blocks. Where an earlier life of the node was killed on the way, it
        goes on.
        """
        try:
            return self._all()
        except (OSError, ValueError) as error:
            return Collected(problem=f"{self._words} could not be taken: {error}")

    def outcome(self, collected: Collected, end: Exit, away: str) -> tuple[Event, str]:
        """The event that ends the build, and why. `away`: why nobody watched its container end."""
        return outcome(
            self.build.request.recipe,
            Ending(
                commands=self.build.commands,
                finished=self.folder.verdict() is not None,
                has_result=bool(collected.artifacts),
                exit_code=end.code,
                engine_words=end.error,
                out_of_memory=end.out_of_memory,
                result_problem=collected.problem,
                away=away,
                disk_problem=self.place.disk_problem(),
            ),
        )

    def _all(self) -> Collected:
        verdict = self.folder.verdict()
        if verdict is None:
            return Collected()
        match self.build.request.recipe.output:
            case IsoOutput() if verdict.has_result:
                artifact = self.place.artifacts.take(
                    self.build.id, self.folder.take_result, self.stop
                )
                return Collected((artifact,))
            case PathsOutput() if verdict.has_result:
                return self._files()
            case PathsOutput():
                missing = ", ".join(repr(path) for path in self.folder.unmatched())
                return Collected(problem=f"no regular file matches {missing}" if missing else "")
            case OutboxOutput(name=name):
                artifact = self.place.artifacts.take(self.build.id, self._pack, self.stop, name)
                return Collected((artifact,))
            case StreamOutput(pipe=True) if self._streamed:
                if self.read is None:
                    return Collected(problem="nobody read what it streamed")
                return Collected((self.read,))
            case StreamOutput(name=name) if self._streamed:
                artifact = self.place.artifacts.take(
                    self.build.id, self.folder.take_stream, self.stop, name
                )
                return Collected((artifact,))
        return Collected()

    def _files(self) -> Collected:
        names = artifact_names(self.folder.result_names())
        if not names:
            raise ValueError("the supervisor named none")
        return Collected(
            tuple(
                self.place.artifacts.take(
                    self.build.id, partial(self.folder.take_file, number), self.stop, name
                )
                for number, name in enumerate(names)
            )
        )

    def _pack(self, target: Path) -> int:
        settings = self.place.settings
        bounds = Bounds(settings.outbox_files, settings.outbox_size)
        with self.folder.outbox() as outbox:
            return pack(outbox, target, bounds, self.stop, self.log.say)

    @property
    def _streamed(self) -> bool:
        """Whether the last command came to a good end."""
        last = len(self.build.request.recipe.commands) - 1
        return self.build.commands[last].exit_code == 0

    @property
    def _words(self) -> str:
        match self.build.request.recipe.output:
            case PathsOutput():
                return "the files"
            case OutboxOutput():
                return "the outbox"
            case StreamOutput():
                return "the stream"
        return "the image"
