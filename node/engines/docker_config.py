"""A container as the Docker Engine is asked for it: which of its many options we set, and how."""

from typing import Any

from node.engines.base import ContainerSpec, Limits
from node.engines.docker_client import STOP_SIGNAL

_OOM_SCORE = 990  # builds die first; the supervisor puts commands at 1000, before itself


def container_config(spec: ContainerSpec, cpus: int) -> dict[str, Any]:
    """The body of POST /containers/create. `cpus`: of the engine's machine, which refuses more."""
    return {
        "Image": spec.image,
        "Entrypoint": list(spec.entrypoint),  # with it set, the image's CMD is ignored too
        "Cmd": [],
        "User": "0:0",
        "Healthcheck": {"Test": ["NONE"]},
        "StopTimeout": 1,  # seconds: PID 1 heeds no SIGTERM, so waiting for it is in vain
        "StopSignal": str(STOP_SIGNAL),  # not the image's: by it we know that the engine sent it
        "Env": [f"{name}={value}" for name, value in spec.environment.items()],
        "Labels": dict(spec.labels),
        "HostConfig": {
            "Init": False,  # the supervisor is PID 1, whatever the engine's default
            "AutoRemove": False,
            "CapDrop": ["ALL"],
            "CapAdd": list(spec.capabilities),
            "SecurityOpt": ["no-new-privileges"],
            "OomScoreAdj": _OOM_SCORE,
            "LogConfig": {"Type": "none"},  # the output goes to the work folder
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": str(mount.source),
                    "Target": mount.target,
                    "ReadOnly": mount.read_only,
                    "BindOptions": {"Propagation": "rprivate"},
                }
                for mount in spec.mounts
            ],
            **_limits(spec.limits, cpus),
        },
    }


def _limits(limits: Limits, cpus: int) -> dict[str, Any]:
    return {
        "Memory": limits.memory,
        "MemorySwap": limits.memory + limits.swap,
        "NanoCpus": int(min(limits.cpus, cpus) * 1e9),
        "PidsLimit": limits.processes,
        "NetworkMode": (limits.bridge or "bridge") if limits.network else "none",
        "Ulimits": ulimits(limits),
    }


def ulimits(limits: Limits) -> list[dict[str, Any]]:
    """What each process may have, soft and hard alike."""
    asked = {
        "core": 0,  # the host's core_pattern may be a program, or a file outside our limits
        "fsize": limits.file_size,
        "nofile": limits.open_files,
    }
    return [
        {"Name": name, "Soft": value, "Hard": value}
        for name, value in asked.items()
        if value or name == "core"
    ]
