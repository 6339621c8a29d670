"""What the Docker Engine and the system say of images and containers, read without either."""

from pathlib import Path

import pytest

from node.engines import docker_cgroups
from node.engines.docker_building import Building
from node.engines.docker_cgroups import Cgroups
from node.engines.errors import EngineDown, EngineError, ImageFailed, RegistryUnreachable
from protocol.model.build import Usage


def building(*events: dict[str, object]) -> Building:
    """A builder that said this."""
    heard = Building(lambda data: None)
    for event in events:
        heard.heard(event)
    return heard


FROM = {"stream": "Step 1/2 : FROM far/away:1"}
RUN = {"stream": "Step 2/2 : RUN true"}


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ((), EngineDown),
        ((FROM, {"stream": " ---> 0123456789ab\n"}), EngineDown),
        ((FROM, {"error": "dial tcp: lookup far: no such host"}), RegistryUnreachable),
        ((FROM, {"error": "pull access denied for far/away"}), ImageFailed),
        ((FROM, RUN, {"error": "dial tcp: lookup far: no such host"}), ImageFailed),
        ((FROM, RUN, {"error": "The command '/bin/sh -c x' returned a ..."}), ImageFailed),
        ((FROM, {"error": "write /x: no space left on device"}), EngineError),
    ],
)
def test_why_no_image_was_made(events, kind) -> None:
    """What ends without a word is the engine's end; a registry that does not answer, and a full
    disk, are no failures of the user's; all else is.
    """
    with pytest.raises(EngineError) as failed:
        building(*events).check()
    assert type(failed.value) is kind


def test_images_of_steps() -> None:
    """Those that were made now: neither the base nor what was there before."""
    heard = building(
        FROM,
        {"stream": " ---> 000000000001\n"},
        RUN,
        {"stream": " ---> Using cache\n"},
        {"stream": " ---> 000000000002\n"},
        RUN,
        {"stream": " ---> Running in 000000000003\n"},
        {"stream": " ---> 000000000004\n"},
        {"stream": "Successfully built 000000000004\n"},
    )
    heard.check()
    assert heard.made == ["000000000004"]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders in place of /proc and /sys/fs/cgroup."""
    monkeypatch.setattr(docker_cgroups, "_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(docker_cgroups, "_PROCESSES", tmp_path / "proc")
    return tmp_path


def put(root: Path, **files: str) -> None:
    """Files with this content; __ in a name is a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_version_2(machine: Path) -> None:
    """One folder has all."""
    put(machine, proc__7__cgroup="0::/system.slice/docker-abc.scope\n")
    home = machine / "cgroup" / "system.slice" / "docker-abc.scope"
    home.mkdir(parents=True)
    (machine / "cgroup" / "cgroup.controllers").touch()
    (home / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (home / "memory.stat").write_text("anon 1000\nfile 5000\n")
    (home / "io.stat").write_text("8:0 rbytes=10 wbytes=20 rios=1\n8:1 rbytes=1 wbytes=2\n")
    found = Cgroups().of("abc", lambda: 7)
    assert found is not None
    assert found.usage() == Usage(1.5, 1000, 11, 22)


def test_version_1(machine: Path) -> None:
    """One folder for each controller; what is not there counts as nothing."""
    lines = ("4:cpu,cpuacct:/docker/abc", "3:memory:/docker/abc", "2:blkio:/docker/abc")
    put(machine, proc__7__cgroup="".join(f"{line}\n" for line in lines))
    put(machine / "cgroup", cpuacct__docker__abc__x="")
    cpu = machine / "cgroup" / "cpuacct" / "docker" / "abc"
    (cpu / "cpuacct.usage").write_text("2500000000\n")
    found = Cgroups().of("abc", lambda: 7)
    assert found is not None
    assert found.usage() == Usage(2.5)


@pytest.mark.parametrize("process", [0, 7, 8])
def test_a_process_that_is_not_the_containers(machine: Path, process: int) -> None:
    """None, or one of another machine's number: nothing is read here."""
    put(machine, proc__7__cgroup="0::/system.slice/docker-other.scope\n")
    assert Cgroups().of("abc", lambda: process) is None
