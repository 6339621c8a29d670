"""How builds are confined: what the engine is asked for, how a container that is not is told, and
what a node does not let builds do.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from node.config import CAPABILITIES, NodeSettings
from node.container import limits
from node.core.confinement import granted, problem
from node.core.reach import NEARBY
from node.engines.base import ContainerSpec, Limits
from node.engines.docker import has_user_namespaces
from node.engines.docker_config import container_config
from node.engines.docker_images import _limits as step_limits
from protocol.errors import Denied
from protocol.model.build import Result, State
from protocol.model.recipe import DockerfileBase, ImageBase, ImageOutput, Recipe, TextContent
from protocol.model.request import BuildRequest, Needs
from protocol.ports.service import LOCAL
from tests.programs import a_node, a_scheduler, ended, until

STATUS = """\
CapPrm:\t00000000a00405fb
CapBnd:\t00000000000400fb
NoNewPrivs:\t1
Seccomp:\t2
"""
MOUNTS = """\
overlay / overlay rw,relatime,lowerdir=/a:/b 0 0
proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0
sysfs /sys sysfs ro,nosuid,nodev,noexec,relatime 0 0
proc /proc/bus proc ro,nosuid,nodev,noexec,relatime 0 0
proc /proc/irq proc ro,nosuid,nodev,noexec,relatime 0 0
proc /proc/sys proc ro,nosuid,nodev,noexec,relatime 0 0
proc /proc/sysrq-trigger proc ro,nosuid,nodev,noexec,relatime 0 0
tmpfs /proc/kcore tmpfs rw,nosuid,size=65536k,mode=755 0 0
tmpfs /proc/keys tmpfs rw,nosuid,size=65536k,mode=755 0 0
tmpfs /proc/timer_list tmpfs rw,nosuid,size=65536k,mode=755 0 0
there /proc/bus
there /proc/sysrq-trigger
there /proc/kcore
"""
SOUND = STATUS.replace("a00405fb", "000400fb") + MOUNTS


def test_capabilities_by_bit() -> None:
    """As the engine's documents list its default ones for that mask."""
    default = """
        CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW
        SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP
    """
    assert granted("00000000a80425fb") == tuple(default.split())
    assert granted("0") == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("", ""), ""),
        (("CapBnd:\t00000000000400fb", "CapBnd:\t00000000002400fb"), "SYS_ADMIN (CapBnd)"),
        (("CapPrm:\t00000000000400fb", "CapPrm:\t00000000000420fb"), "NET_RAW (CapPrm)"),
        (("NoNewPrivs:\t1", "NoNewPrivs:\t0"), "may gain privileges"),
        (("Seccomp:\t2", "Seccomp:\t0"), "not filtered"),
        (("/proc/sys proc ro", "/proc/sys proc rw"), "/proc/sys is not read-only"),
        (("sysfs /sys sysfs ro", "sysfs /sys sysfs rw"), "/sys is not read-only"),
        (("/proc/bus proc ro", "/proc/bus proc rw"), "/proc/bus is not read-only"),
        (("tmpfs /proc/kcore", "tmpfs /x"), "/proc/kcore is not hidden"),
        ((SOUND, ""), "/proc/sys is not read-only"),
    ],
)
def test_what_a_container_says_of_itself(change: tuple[str, str], words: str) -> None:
    """Nothing is wrong, or what is; saying nothing is no proof."""
    allowed = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")
    said = problem(SOUND.replace(*change), (*allowed, "SYS_CHROOT"))
    assert words in said if words else said == ""


def test_what_the_engine_is_asked_for() -> None:
    """All of the limits; its own defaults for what it hides of the kernel and filters of calls."""
    asked = Limits(100, 1.0, 50, network=True, bridge="b", swap=20, file_size=7, open_files=9)
    spec = ContainerSpec("n", "i", (), {}, {}, (), asked, CAPABILITIES)
    host = container_config(spec, 2)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (100, 120, 50)
    assert host["NetworkMode"] == "b"
    assert host["Ulimits"] == [
        {"Name": "core", "Soft": 0, "Hard": 0},
        {"Name": "fsize", "Soft": 7, "Hard": 7},
        {"Name": "nofile", "Soft": 9, "Hard": 9},
    ]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    unasked = {"Privileged", "MaskedPaths", "ReadonlyPaths", "Devices", "PidMode", "UsernsMode"}
    assert not host.keys() & unasked
    steps = step_limits(asked)
    assert (steps["memswap"], steps["networkmode"]) == ("120", "b")
    assert json.loads(steps["ulimits"]) == host["Ulimits"]


@pytest.mark.parametrize(
    ("settings", "bridge", "mode"),
    [
        ({"build_network": "none"}, "", "none"),
        ({"build_network": "open"}, "", "bridge"),
        ({"build_network": "internet"}, "own", "own"),
    ],
)
def test_limits_of_a_build(settings: Any, bridge: str, mode: str) -> None:
    """The node's; a build without network has none whatever the node gives."""
    chosen = NodeSettings(swap=1, file_size=1 << 20, open_files=64, **settings)
    for network, expected in ((True, mode), (False, "none")):
        given = limits(Needs(network=network), chosen, bridge)
        assert (given.swap, given.file_size, given.open_files) == (1, 1 << 20, 64)
        spec = ContainerSpec("n", "i", (), {}, {}, (), given, ())
        assert container_config(spec, 2)["HostConfig"]["NetworkMode"] == expected


@pytest.mark.parametrize(
    ("options", "has"),
    [
        ((), False),
        (("name=seccomp,profile=default",), False),
        (("name=seccomp,profile=default", "name=userns"), True),
        (("name=rootless",), True),
    ],
)
def test_user_namespaces(options: tuple[str, ...], has: bool) -> None:
    """By the words of the engine."""
    assert has_user_namespaces(options) is has


@pytest.mark.gen_test
async def test_a_dockerfile_where_it_is_not_allowed(tmp_path) -> None:
    """Refused, at a look ahead too; other bases are not."""
    base = DockerfileBase(TextContent("FROM some/image"))
    async with a_node(tmp_path, dockerfiles=False) as node:
        for ask in (node.service.submit, node.service.preview):
            with pytest.raises(Denied, match="Dockerfile") as refused:
                await ask(LOCAL, BuildRequest(Recipe(base=base)))
            assert refused.value.field == "recipe.base"
            assert "dockerfiles = true" in refused.value.expected
        await node.service.preview(LOCAL, BuildRequest(Recipe(base=ImageBase())))
    assert NodeSettings().dockerfiles is False


@pytest.mark.gen_test(timeout=60)
async def test_a_pool_that_allows_it_here_and_there(tmp_path) -> None:
    """The build goes to a node that does; where there is none it waits for one and says why."""
    wanted = BuildRequest(
        Recipe(base=DockerfileBase(TextContent("FROM some/image")), output=ImageOutput())
    )
    async with a_node(tmp_path, dockerfiles=False, priority=9) as strict:
        async with a_node(tmp_path) as other, a_scheduler(tmp_path, strict.url, other.url) as pool:
            build = await ended(pool.service, (await pool.service.submit(LOCAL, wanted)).id)
            assert build.result is Result.SUCCEEDED, build
            assert build.node is not None
            assert build.node.id == other.id
        async with a_scheduler(tmp_path, strict.url) as pool:
            waits = (await pool.service.submit(LOCAL, wanted)).id
            build = await until(pool.service, waits, lambda build: "Dockerfile" in build.reason)
            assert build.state is State.WAITING
            assert "Dockerfile" in str(await pool.service.explain(LOCAL, waits))


def test_the_document() -> None:
    """docs/security.md has the capabilities and networks that the code has, and names its
    settings.
    """
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    section = text.partition("## What a build can do")[2].partition("\n## ")[0]
    row = next(line for line in section.splitlines() if line.startswith("| capabilities |"))
    assert set(re.findall(r"\b[A-Z]{3,}(?:_[A-Z]+)*\b", row)) == set(CAPABILITIES)
    assert [net for net in re.findall(r"[\d.]+/\d+", section) if "168.7" not in net] == [
        str(net) for net in NEARBY
    ]
    wider = granted("00000000a80425fb")
    (steps,) = re.findall(r"default: as above, and ([A-Z_, ]+) \|", section)
    assert set(steps.split(", ")) == set(wider) - set(CAPABILITIES)
    limits = section.partition("### What it can use up")[2].partition("###")[0]
    named = set(re.findall(r"`(\w+)`", limits)) - {"needs", "VOLUME"}
    assert named <= set(NodeSettings.__struct_fields__)
