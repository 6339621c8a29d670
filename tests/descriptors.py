"""What this process holds open."""

import os
from pathlib import Path


def open_below(folder: Path) -> list[str]:
    """The paths of the open files below it, each as often as it is open.

    Unlike a count of all descriptors, this does not move when something of an earlier test closes.
    """
    paths = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:  # the one that lists
            continue
        if path.startswith(f"{folder}/"):
            paths.append(path)
    return sorted(paths)
