"""What a node builds with: its engine, base image, busybox, and the network that builds get."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from imagepool.cli.words import size
from imagepool.doctor.finding import Finding, Subject, fail, in_thread, ok, warn
from node.engines import ENGINES
from node.engines.base import Engine, EngineInfo
from node.engines.errors import EngineError
from node.files.workfolder import BusyboxUnfit, check_busybox
from node.network.firewall import Unguarded
from node.network.outlet import Outlet
from protocol.errors import Invalid, PoolError
from protocol.model.build import tagged
from protocol.model.checks import check_image
from protocol.program.identity import key_of
from protocol.trust.certificates import fingerprint

_NO_ID = "0" * 40
"""Of a node that was never started."""


async def engine(subject: Subject) -> tuple[Finding, ...]:
    """Whether containers can be run, and be kept where they belong."""
    return await in_thread(_engine, subject)


def _engine(subject: Subject) -> tuple[Finding, ...]:
    name = subject.settings.engine
    if name not in ENGINES:
        known = " or ".join(ENGINES)
        return (fail("engine", f"there is no engine {name[:40]!r}", f"--engine {known}"),)
    made = ENGINES[name](subject.folder)
    try:
        return (*_looked_at(subject, made), *_network(subject, made))
    finally:
        made.close()


def _looked_at(subject: Subject, made: Engine) -> Iterator[Finding]:
    try:
        info, images = made.info(), made.images()
    except EngineError as error:
        yield fail("engine", *_absent(error))
        return
    yield _running(subject, info, made.runs_programs)
    yield _base(subject, images, made.runs_programs)
    if made.runs_programs:
        yield _busybox(subject)


def _running(subject: Subject, info: EngineInfo, runs: bool) -> Finding:
    kept = "" if info.user_namespaces else "no "
    parts = (
        f"{info.name} {info.version}",
        info.architecture,
        info.cgroups and f"cgroup v{info.cgroups}",
        info.storage and f"storage {info.storage}",
        f"{kept}user namespaces" if runs else "it plays scripts, and builds nothing",
    )
    words = ", ".join(part for part in parts if part)
    least = subject.settings.disk_reserve
    if (
        info.root
        and os.path.isdir(info.root)
        and (free := shutil.disk_usage(info.root).free) < least
    ):
        lack = f"{words}; {size(free)} are free in {info.root}, and {size(least)} must be"
        return fail("engine", lack, "make room there (docker system df); least: disk_reserve")
    return ok("engine", words)


def _absent(error: EngineError) -> tuple[str, str]:
    """(what is so, what mends it) where the engine does not answer."""
    place = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    causes = {type(cause) for cause in _causes(error)}
    if PermissionError in causes:
        words = f"no permission to {place}"
        return words, "run the node as root, or: usermod -aG docker USER, and log in again"
    if FileNotFoundError in causes:
        words = f"no Docker Engine here: there is no {place}"
        return words, "systemctl start docker, after apt install docker.io; or DOCKER_HOST=URL"
    if ConnectionRefusedError in causes:
        return f"no Docker Engine answers at {place}", "systemctl start docker"
    return str(error)[:200], "systemctl status docker says more; DOCKER_HOST is where it is"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """All errors in an error: libraries wrap them as causes, contexts and arguments."""
    todo, seen = [error], set[int]()
    while todo:
        each = todo.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            within = (each.__cause__, each.__context__, *each.args, getattr(each, "reason", None))
            todo += [one for one in within if isinstance(one, BaseException)]


def _base(subject: Subject, images: frozenset[str], runs: bool) -> Finding:
    settings, name = subject.settings, subject.settings.base_image
    try:
        check_image(name, settings.images, "base_image")
    except PoolError as error:
        return fail(
            "base image", error.detail, f"in the settings images or base_image: {error.expected}"
        )
    if tagged(name) in images or not runs:
        return ok("base image", f"{tagged(name)} is here")
    words = f"{tagged(name)} is not here: the first build that wants it pulls it"
    return warn("base image", words, f"docker pull {name}; or setup/base-image.sh makes one")


def _busybox(subject: Subject) -> Finding:
    path = subject.settings.busybox
    try:
        check_busybox(Path(path))
    except BusyboxUnfit as error:
        return fail("busybox", str(error).partition(";")[0], "apt install busybox-static")
    return ok("busybox", f"{path} is static")


def _network(subject: Subject, made: Engine) -> Iterator[Finding]:
    """Rules are listed, and none is changed."""
    name, policy = "build network", subject.settings.build_network
    try:
        outlet = Outlet(made, subject.settings, _id(subject))
        outlet.look()
    except Invalid as error:
        yield fail(name, error.detail, f"expected: {error.expected}")
    except Unguarded as error:
        why, _, mend = str(error).partition("; ")
        told = warn if outlet.lenient else fail
        words = f"{policy}: {why}" + ("; builds reach all that it does" if outlet.lenient else "")
        yield told(name, words, mend)
    else:
        yield ok(name, f"{policy}: {_meaning(policy, bool(outlet.bridge))}")


def _meaning(policy: str, guarded: bool) -> str:
    if guarded:
        return "builds reach the internet and nothing nearer; iptables answers"
    return "builds reach nothing" if policy == "none" else "builds reach all that the engine's do"


def _id(subject: Subject) -> str:
    try:
        return fingerprint(key_of(subject.folder).public_key())
    except (PoolError, OSError):
        return _NO_ID
