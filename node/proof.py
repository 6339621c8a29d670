"""The proof, at start, that a container sees the node's work folder and the node sees what it
writes there, and that containers are confined as they are to be.

Mounts made in another mount namespace, or an engine on another machine, show the container an empty
folder.
"""

import shutil
from pathlib import Path

from node.config import NodeSettings
from node.container import LABEL, limits
from node.core.confinement import PROBE, problem
from node.engines.base import ContainerSpec, Engine
from node.engines.errors import EngineError
from node.files.workfolder import Plan, PlannedCommand, WorkFolder
from protocol.model.request import Needs

_LOG = 1 << 16  # bytes of what it says


def prove_folder(engine: Engine, settings: NodeSettings, work: Path, word: str, node: str) -> str:
    """Run a container that looks at itself in a fresh folder named by a random word; answer what is
    wrong, or nothing.

    Without the base image on the engine nothing can be tried, and nothing is wrong. Raises
    EngineError.
    """
    image = settings.base_image if ":" in settings.base_image else f"{settings.base_image}:latest"
    if image not in engine.images():
        return ""
    root = work / f"proof-{word}"
    look = (PlannedCommand(PROBE.encode(), (), {}),) if engine.runs_programs else ()
    plan = Plan(commands=look, keep_going=True, log_limit=_LOG, find_iso=False)
    busybox = Path(settings.busybox) if engine.runs_programs else None
    folder = WorkFolder.create(root, plan, busybox)
    spec = ContainerSpec(
        name=f"imagepool-proof-{word}",
        image=image,
        entrypoint=folder.entrypoint,
        environment={},
        labels={f"{LABEL}.node": node},
        mounts=folder.mounts,
        limits=limits(Needs(network=False), settings),
        capabilities=settings.capabilities,
    )
    container = ""
    try:
        container = engine.start(spec)
        end = engine.wait(container)
        seen = folder.verdict() is not None
        said = folder.read_log(0, _LOG).decode("utf-8", "replace")
    except EngineError as error:
        return f"a container could not be run in {work}: {error}"
    finally:
        if container:
            engine.remove(container)
        shutil.rmtree(root, ignore_errors=True)
    if seen and look and (words := problem(said, settings.capabilities)):
        return f"builds would not be confined by this engine: {words}"
    if seen:
        return ""
    return f"containers do not see the folder {work} (exit code {end.code} {end.error})"
