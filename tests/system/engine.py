"""The real engine for tests: images of a few files made on the spot, and plans run in them."""

import contextlib
import io
import itertools
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import docker
from msgspec import Struct

from node.engines.base import ContainerSpec, Engine, Exit, Limits
from node.files.workfolder import Plan, PlannedCommand, Step, Verdict, WorkFolder

BUSYBOX = Path("/bin/busybox")
PREFIX = "imagepool-test"
LABEL = {f"{PREFIX}.run": str(os.getpid())}
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID")
PATIENCE = 30.0  # seconds that anything waited for may take
LONGEST = 120.0  # seconds that a plan may take

_APPLETS = """
    cat chmod dd echo env grep head id kill ln ls mkdir mkfifo mv ps printf pwd rm setsid sh sleep
    stat su tail touch true truncate wc yes
""".split()  # noqa: SIM905
_names = itertools.count()


class File(Struct, frozen=True):
    """A file of an image: its content, or where a symbolic link leads; neither: a folder."""

    content: bytes | None = None
    link: str = ""
    mode: int = 0o755


Tree = Mapping[str, File]

ISO = b"an image\n" * 1000
FIND_ISO = File(b"#!/bin/sh\nprintf %s /toiso/image.iso\n")


def shell_tree(**more: File) -> dict[str, File]:
    """An image with a shell, some programs, and a result for the asking; names may hold slashes."""
    passwd = b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
    return {
        "bin/busybox": File(BUSYBOX.read_bytes()),
        **{f"bin/{applet}": File(link="busybox") for applet in _APPLETS},
        "etc/passwd": File(passwd, mode=0o644),
        "toiso/iso_path.sh": FIND_ISO,
        "toiso/image.iso": File(ISO, mode=0o600),
        **more,
    }


def make_image(tree: Tree, *changes: str) -> str:
    """Import an image of these files, with these Dockerfile lines; its name."""
    name = f"{PREFIX}/{os.getpid()}-{next(_names)}:latest"
    client = docker.APIClient()
    try:
        repository, tag = name.split(":")
        client.import_image_from_data(
            archive(tree), repository=repository, tag=tag, changes=list(changes)
        )
    finally:
        client.close()
    return name


def remove_everything() -> None:
    """All containers and images that this process made."""
    client = docker.APIClient()
    labels = [f"{name}={value}" for name, value in LABEL.items()]
    try:
        for container in client.containers(all=True, filters={"label": labels}):
            client.remove_container(container["Id"], force=True, v=True)
        for image in client.images(name=f"{PREFIX}/{os.getpid()}-*"):
            for name in image["RepoTags"] or ():
                if name.startswith(f"{PREFIX}/{os.getpid()}-"):
                    client.remove_image(name, force=True)
    finally:
        client.close()


def archive(tree: Tree) -> bytes:
    """The files as a tar archive."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as packed:
        for path, file in tree.items():
            entry = tarfile.TarInfo(path)
            entry.mode = file.mode
            if file.content is not None:
                entry.size = len(file.content)
            elif file.link:
                entry.type, entry.linkname = tarfile.SYMTYPE, file.link
            else:
                entry.type = tarfile.DIRTYPE
            packed.addfile(entry, io.BytesIO(file.content or b""))
    return held.getvalue()


def command(text: str | bytes, *arguments: str, **environment: str) -> PlannedCommand:
    """A command of this text; a shell script where it names no interpreter."""
    data = text.encode() if isinstance(text, str) else text
    return PlannedCommand(data, arguments, environment)


def script(lines: str, *arguments: str, **environment: str) -> PlannedCommand:
    """A shell script."""
    return command(f"#!/bin/sh\n{lines}\n", *arguments, **environment)


def plan(
    *commands: PlannedCommand,
    keep_going: bool = True,
    log_limit: int = 1 << 30,
    find_iso: bool = False,
) -> Plan:
    """A plan with defaults."""
    return Plan(commands, keep_going, log_limit, find_iso)


def container_spec(
    folder: WorkFolder,
    image: str,
    *,
    memory: int = 1 << 28,
    processes: int = 200,
    capabilities: Iterable[str] = CAPABILITIES,
    environment: Mapping[str, str] | None = None,
    labels: Mapping[str, str] = LABEL,
) -> ContainerSpec:
    """What starts the folder's plan in the image."""
    return ContainerSpec(
        name=f"{PREFIX}-{os.getpid()}-{next(_names)}",
        image=image,
        entrypoint=folder.entrypoint,
        environment=environment or {},
        labels={**LABEL, **labels},
        mounts=folder.mounts,
        limits=Limits(memory, 2.0, processes, network=False),
        capabilities=tuple(capabilities),
    )


class Outcome(Struct, frozen=True):
    """What a plan left behind."""

    steps: tuple[Step, ...]
    outputs: tuple[bytes, ...]
    verdict: Verdict | None
    exit: Exit
    result: bytes | None  # what take_result gave

    @property
    def codes(self) -> list[int | None]:
        """The exit codes of the steps."""
        return [step.exit_code for step in self.steps]


def run(engine: Engine, root: Path, what: Plan, image: str, **limits: object) -> Outcome:
    """Run a plan to its end."""
    folder = WorkFolder.create(root, what, BUSYBOX if engine.runs_programs else None)
    with started(engine, folder, image, **limits) as container:
        end = ended(engine, container)
    return outcome(folder, end)


def ended(engine: Engine, container: str) -> Exit:
    """How a container ended. One that hangs is killed, and the failure says what runs in it."""
    hanging: list[str] = []

    def look() -> None:
        hanging.append(_processes(container) if engine.runs_programs else "")
        engine.kill(container)

    patience = threading.Timer(LONGEST, look)
    patience.start()
    try:
        end = engine.wait(container)
    finally:
        patience.cancel()
        patience.join()
    assert not hanging, f"it did not end within {LONGEST} s:\n{hanging[0]}"
    return end


def _processes(container: str) -> str:
    client = docker.APIClient()
    try:
        rows = client.top(container, "-eo pid,ppid,stat,wchan:20,args")["Processes"]
    finally:
        client.close()
    return "\n".join(" ".join(row) for row in rows)


@contextlib.contextmanager
def started(engine: Engine, folder: WorkFolder, image: str, **limits: object) -> Iterator[str]:
    """A container that runs the folder's plan; removed afterwards."""
    container = engine.start(container_spec(folder, image, **limits))  # type: ignore[arg-type]
    try:
        yield container
    finally:
        engine.remove(container)


def outcome(folder: WorkFolder, end: Exit) -> Outcome:
    """What a folder says after the end; the folder is deleted."""
    steps, verdict = folder.steps(), folder.verdict()
    outputs = tuple(
        b"" if step.start is None or step.end is None else _log(folder, step.start, step.end)
        for step in steps
    )
    result = None
    if verdict and verdict.has_result:
        target = folder.root.with_name("result")
        folder.take_result(target)
        result = target.read_bytes()
        target.unlink()
    folder.remove()
    return Outcome(steps, outputs, verdict, end, result)


def _log(folder: WorkFolder, start: int, end: int) -> bytes:
    return folder.read_log(start, end - start)


def until(condition: Callable[[], object]) -> None:
    """Return when it holds. Fails where it does not within the time that everything has."""
    pause = threading.Event()
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be in time"
        pause.wait(0.01)
