"""Installer ISOs of the Traffic Ops family, made on the real engine through a scheduler: what is in
them, that each request has its own, and that the machine that boots one is the one asked for.
"""

import asyncio
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import docker
import msgspec
import pytest

from protocol.api.traffic_ops.settings import TrafficOpsSettings
from tests.figures import Figures
from tests.programs import a_node, a_scheduler, ready
from tests.system.engine import BUSYBOX, File, archive, make_image, remove_everything
from tests.system.qemu import Machine, boot

pytestmark = [pytest.mark.system, pytest.mark.gen_test(timeout=1800)]

BASE_IMAGE = os.environ.get("BASE_IMAGE") or "codersos/linux-image-creator"
INSTALLER = os.environ.get("INSTALLER_IMAGE") or "imagepool/installer"
PASSWORD = "correct horse"
PATIENCE = 400.0
"""Seconds that an emulated machine may take for its next step."""
MACHINE = {
    "osversionDir": "debian12",
    "hostName": "edge01",
    "domainName": "cdn.example",
    "rootPass": PASSWORD,
    "dhcp": "no",
    "interfaceMtu": 1450,
    "ipAddress": "10.0.2.50",
    "ipNetmask": "255.255.255.0",
    "ipGateway": "10.0.2.2",
    "ip6Address": "fd00:50::10/64",
    "ip6Gateway": "fd00:50::1",
    "interfaceName": "bond0",
    "disk": "vda",
    "stream": "yes",
}
APPLETS = ("sh", "cat", "chmod", "cp", "mkdir", "mktemp", "printf", "sleep", "head")
KS = {"os/ks_scripts/ks.cfg": File(b"the operator's own")}


def settings(folder: str, **bases: str) -> TrafficOpsSettings:
    """OS versions of these images, in this folder of them; ours besides."""
    versions = {
        name: {"title": name, "base": {"kind": "image", "name": image}, "folder": folder}
        for name, image in bases.items()
    }
    ours = {"title": "Debian 12", "base": {"kind": "image", "name": INSTALLER}}
    versions["debian12"] = ours
    return msgspec.convert(
        {"os_versions": versions, "name_servers": ["10.0.2.3", "fd00:50::3"]}, TrafficOpsSettings
    )


class Client:
    """Asks a scheduler for ISOs."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self.url = session, url

    @asynccontextmanager
    async def asked(self, **changes: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, of which nothing has been read."""
        url = f"{self.url}/api/1.3/isos"
        async with self._session.post(url, json={**MACHINE, **changes}) as answer:
            yield answer

    async def add_user(self, name: str, password: str) -> None:
        """The first one, who is an admin."""
        user = {"role": "admin", "password": password}
        async with self._session.put(f"{self.url}/api/v1/users/{name}", json=user) as answer:
            assert answer.status < 300, await answer.text()

    async def iso(self, to: Path, **changes: Any) -> tuple[float, float]:
        """Save the ISO; seconds until its first byte, and until its last."""
        begun = time.monotonic()
        async with self.asked(**changes) as answer:
            assert answer.status == 200, await answer.text()
            first = await answer.content.readany()
            seconds = time.monotonic() - begun
            with to.open("wb") as file:
                file.write(first)
                async for piece in answer.content.iter_chunked(1 << 20):
                    file.write(piece)
        return seconds, time.monotonic() - begun


@asynccontextmanager
async def a_client(
    place: Path, slots: int = 1, folder: str = "/os", **bases: str
) -> AsyncIterator[Client]:
    """Of a scheduler over one node."""
    own = settings(folder, **bases)
    async with (
        a_node(place, engine="docker", slots=slots, traffic_ops=own) as node,
        a_scheduler(place, node.url, traffic_ops=own) as scheduler,
        aiohttp.ClientSession() as session,
    ):
        await ready(scheduler)
        yield Client(session, scheduler.url)


def unpacked(iso: Path, what: str, to: Path) -> Path:
    """A folder of the ISO."""
    command = ["xorriso", "-osirrox", "on", "-indev", iso, "-extract", what, to]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["chmod", "-R", "u+w", to], check=True)
    return to


@pytest.fixture(scope="module")
def images() -> Iterator[None]:
    """What tests make is taken away."""
    yield
    remove_everything()


@contextmanager
def on_ours(**tree: File) -> Iterator[str]:
    """The image of installers with these files, as a Dockerfile's COPY would have them."""
    name = f"imagepool-test/{os.getpid()}-ours:latest"
    client = docker.APIClient()
    try:
        made = client.create_container(INSTALLER, ["/bin/sh"])["Id"]
        client.put_archive(made, "/", archive({path.lstrip("/"): f for path, f in tree.items()}))
        client.commit(made, *name.split(":"))
        client.remove_container(made)
        yield name
    finally:
        client.remove_image(name, force=True)
        client.close()


def an_os(**tree: File) -> str:
    """An image with an OS version in /os, and what makes an ISO of it."""
    shell = {
        "bin/busybox": File(BUSYBOX.read_bytes()),
        **{f"bin/{applet}": File(link="busybox") for applet in APPLETS},
        "tmp": File(mode=0o1777),
    }
    return make_image({**shell, **{name.replace("__", "/"): f for name, f in tree.items()}})


async def test_what_is_in_it(tmp_path: Path, figures: Figures) -> None:
    """The settings, to the byte; and how soon it comes, beside xorriso in a container alone."""
    async with a_client(tmp_path) as client:
        await client.iso(tmp_path / "warm.iso")
        first, last = await client.iso(tmp_path / "made.iso")
        async with client.asked(stream="no") as answer:
            said = (await answer.json())["response"]
        assert said["isoName"] == "edge01.cdn.example-debian12.iso"
        async with aiohttp.ClientSession() as session, session.get(said["isoURL"]) as answer:
            assert answer.status == 200
            (tmp_path / "kept.iso").write_bytes(await answer.read())
    assert boot_record(tmp_path / "kept.iso") == boot_record(tmp_path / "made.iso")
    kept = unpacked(tmp_path / "kept.iso", "/ks_scripts", tmp_path / "kept")
    folder = unpacked(tmp_path / "made.iso", "/ks_scripts", tmp_path / "ks")
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert texts.keys() == {
        "network.cfg",
        "mgmt_network.cfg",
        "disk.cfg",
        "password.cfg",
        "state.out",
    }
    assert texts["disk.cfg"] == 'boot_drives="vda"'
    assert texts["network.cfg"].startswith('IPADDR="10.0.2.50"\nNETMASK="255.255.255.0"\n')
    assert texts["password.cfg"].startswith("rootpw --iscrypted $1$")
    assert texts["state.out"].startswith("Dir== /os\nxorriso ")
    for name in ("network.cfg", "mgmt_network.cfg", "disk.cfg"):
        assert (kept / name).read_text() == texts[name]
    typed = by_hand()
    megabytes = (tmp_path / "made.iso").stat().st_size / 1e6
    figures(
        f"an installer ISO of {megabytes:.0f} MB: first byte {first:.2f} s, last {last:.2f} s after"
        f" the request; xorriso by hand in the same container: {typed:.2f} s"
    )


def file_of(image: str, path: str) -> bytes:
    """A file of an image."""
    line = ["docker", "run", "--rm", "--network", "none", image, "cat", path]
    return subprocess.run(line, check=True, capture_output=True).stdout


def boot_record(iso: Path) -> str:
    """What a BIOS finds of it."""
    command = ["xorriso", "-indev", iso, "-report_el_torito", "plain"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def by_hand() -> float:
    """Seconds that xorriso takes, typed in a container that runs already."""
    name = f"imagepool-test-{os.getpid()}-hand"
    run = ["docker", "run", "-d", "--rm", "--network", "none", "--name", name, INSTALLER]
    subprocess.run([*run, "sh", "-c", "while :; do cat; done"], check=True, capture_output=True)
    line = (
        "mkdir -p /tmp/ks && /toiso/lib/ld-linux-x86-64.so.2 --library-path /toiso/lib"
        " /toiso/bin/xorriso -indev /os/base.iso -outdev - -boot_image any replay"
        " -map /tmp/ks /ks_scripts -commit"
    )
    try:
        begun = time.monotonic()
        made = ["docker", "exec", name, "sh", "-c", line]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.monotonic() - begun
    finally:
        subprocess.run(["docker", "rm", "-f", name], check=True, capture_output=True)


async def test_ten_at_once(tmp_path: Path) -> None:
    """Each has the address that was asked for with it."""
    async with a_client(tmp_path, slots=10) as client:
        files = [tmp_path / f"{number}.iso" for number in range(10)]
        await asyncio.gather(
            *(
                client.iso(file, hostName=f"edge{number}", ipAddress=f"10.0.2.{number + 10}")
                for number, file in enumerate(files)
            )
        )
    for number, file in enumerate(files):
        text = (unpacked(file, "/ks_scripts", tmp_path / f"ks{number}") / "network.cfg").read_text()
        assert f'IPADDR="10.0.2.{number + 10}"\n' in text
        assert f'HOSTNAME="edge{number}.cdn.example"\n' in text


async def test_a_folder_as_the_original_has_them(tmp_path: Path, images: None) -> None:
    """isolinux/ and ks_scripts/: mkisofs is given what the original gave it, and its output is the
    ISO; or `generate`, where that is executable.
    """
    mkisofs = File(b'#!/bin/sh\nprintf "%s\\n" "$@"\ncat /os/ks_scripts/*.cfg\n')
    loader = {"os/isolinux/isolinux.bin": File(b"boot"), **KS}
    generate = b'#!/bin/sh\nprintf "to %s\\n" "$1" >"$1"\ncat /os/ks_scripts/disk.cfg >>"$1"\n'
    bases = {
        "centos72": an_os(**{"bin/mkisofs": mkisofs, **loader}),
        "own": an_os(**{"os/generate": File(generate), **KS}),
        "not": an_os(**{"bin/mkisofs": mkisofs, "os/generate": File(b"no", mode=0o644), **loader}),
    }
    async with a_client(tmp_path, **bases) as client:
        for name in bases:
            await client.iso(tmp_path / name, osversionDir=name)
    arguments = (tmp_path / "centos72").read_text()
    assert arguments.startswith(
        "-joliet-long\n-input-charset\nutf-8\n-b\nisolinux/isolinux.bin\n-c\nisolinux/boot.cat\n"
        "-no-emul-boot\n-boot-load-size\n4\n-boot-info-table\n-R\n-J\n-v\n-T\n/os\n"
    )
    for text in ("the operator's own", 'boot_drives="vda"', 'IPADDR="10.0.2.50"', "$1$"):
        assert text in arguments
    assert (tmp_path / "own").read_text().endswith('/made.iso\nboot_drives="vda"')
    again = (tmp_path / "not").read_text()
    assert again.partition("rootpw")[0] == arguments.partition("rootpw")[0]


async def test_isolinux_by_our_own_tools(tmp_path: Path, images: None) -> None:
    """An image of ours with the folder in it: what comes boots by it."""
    loader = file_of(BASE_IMAGE, "/toiso/boot/isolinux.bin")
    tree = {
        "os7/isolinux/isolinux.bin": File(loader),
        "os7/ks_scripts/ks.cfg": File(b"the operator's own"),
    }
    with on_ours(**tree) as image:
        async with a_client(tmp_path, folder="/os7", centos72=image) as client:
            await client.iso(tmp_path / "made.iso", osversionDir="centos72")
    assert "/isolinux/isolinux.bin" in boot_record(tmp_path / "made.iso")
    folder = unpacked(tmp_path / "made.iso", "/ks_scripts", tmp_path / "ks")
    assert (folder / "ks.cfg").read_text() == "the operator's own"
    assert 'IPADDR="10.0.2.50"' in (folder / "network.cfg").read_text()


async def test_the_documents_request(tmp_path: Path) -> None:
    """docs/traffic-ops.md: its lines, typed as they stand by a user of that name."""
    text = (Path(__file__).parents[2] / "docs" / "traffic-ops.md").read_text()
    (lines,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    async with a_client(tmp_path) as client:
        await client.add_user("ann", "correct horse battery")
        typed = await asyncio.create_subprocess_exec(
            "sh", "-ec", lines, cwd=tmp_path, env={**os.environ, "URL": client.url}
        )
        assert await typed.wait() == 0
    assert (unpacked(tmp_path / "edge01.iso", "/ks_scripts", tmp_path / "ks") / "disk.cfg").exists()


async def test_what_fails(tmp_path: Path, images: None) -> None:
    """Before the first byte: an alert, the reason is in the log; after it the connection is cut."""
    broken = File(b"#!/bin/sh\nhead -c 34816 /dev/zero\nsleep 1\nexit 255\n")
    loader = {"os/isolinux/isolinux.bin": File(b"boot"), **KS}
    bases = {
        "none": an_os(**KS),
        "breaks": an_os(**{"bin/mkisofs": broken, **loader}),
        "bad": an_os(**{"os/generate": File(b"#!/bin/sh\necho no licence\nexit 4\n"), **KS}),
    }
    ended = "the command 'make the ISO' ended with"
    told = {
        "none": f"{ended} 1: make the ISO: there is no isolinux/isolinux.bin in /os;",
        "bad": f"{ended} 4: no licence;",
    }
    async with a_client(tmp_path, **bases) as client:
        for name, said in told.items():
            for stream in ("yes", "no"):
                async with client.asked(osversionDir=name, stream=stream) as answer:
                    assert answer.status == 500
                    (alert,) = (await answer.json())["alerts"]
                    assert alert["level"] == "error"
                    assert f"unable to generate ISO: {said}" in alert["text"]
        async with client.asked(osversionDir="breaks") as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        async with client.asked(osversionDir="breaks", stream="no") as answer:
            assert answer.status == 500


def asked_for_a_name(machine: Machine) -> None:
    """What else is said on the console may stand behind the question: it is asked anew."""
    deadline = machine.age() + PATIENCE
    while True:
        machine.type("")
        try:
            machine.prompts("login:$", timeout=5)
            return
        except AssertionError:
            if machine.age() > deadline:
                raise


def logged_in(machine: Machine) -> None:
    """By the password that was asked for, after a wrong one."""
    asked_for_a_name(machine)
    for password, answer in (("wrong", "login:$"), (PASSWORD, "root@edge01.*#$")):
        machine.prompts("login:$", timeout=PATIENCE)
        machine.type("root")
        machine.prompts("Password:$", timeout=PATIENCE)
        machine.type(password)
        machine.prompts(answer, timeout=PATIENCE)
    assert any("Login incorrect" in line for line in machine.lines)


async def test_it_boots(tmp_path: Path, figures: Figures) -> None:
    """It says by itself who it is, and lets in who has the password."""
    iso = tmp_path / "made.iso"
    async with a_client(tmp_path) as client:
        await client.iso(iso)
    await asyncio.to_thread(reports, iso, figures)


async def test_it_installs_itself(tmp_path: Path, figures: Figures) -> None:
    """Onto the disk that was named, where it finds it; and that disk boots alone. By UEFI, the disk
    by BIOS too.
    """
    iso, disk = tmp_path / "made.iso", tmp_path / "disk"
    async with a_client(tmp_path) as client:
        await client.iso(iso)
    with disk.open("wb") as file:
        file.truncate(4 << 30)
    await asyncio.to_thread(installs, iso, disk, figures)
    await asyncio.to_thread(boots_alone, disk, figures)
    await asyncio.to_thread(boots_by_bios, disk)


def reports(iso: Path, figures: Figures) -> None:
    """The live system, on a machine without a disk."""
    with boot(iso, cards=2) as machine:
        machine.wait_for(r"imagepool: host name edge01\.cdn\.example$", timeout=PATIENCE)
        machine.wait_for(
            "interface bond0: up, MTU 1450, mode 802.3ad, links eth0 eth1$", timeout=PATIENCE
        )
        machine.wait_for(r"interface eth0: up, MTU 1450, of bond0$", timeout=PATIENCE)
        machine.wait_for(r"interface eth1: up, MTU 1450, of bond0$", timeout=PATIENCE)
        machine.wait_for(r"IPv4: 10\.0\.2\.50/24 on bond0, gateway 10\.0\.2\.2$", timeout=PATIENCE)
        machine.wait_for(r"IPv6: fd00:50::10/64 on bond0, gateway fd00:50::1$", timeout=PATIENCE)
        machine.wait_for(r"name servers 10\.0\.2\.3 fd00:50::3", timeout=PATIENCE)
        reported = machine.age()
        machine.wait_for("imagepool: there is no disk /dev/vda: nothing is installed", timeout=60)
        logged_in(machine)
    figures(f"an installer ISO: reported after {reported:.0f} s")


def installs(iso: Path, disk: Path, figures: Figures) -> None:
    """The live system, up to the end of the installation."""
    with boot(iso, firmware="uefi", cards=2, disk=disk) as machine:
        machine.wait_for("imagepool: installing on /dev/vda", timeout=PATIENCE)
        begun = machine.age()
        machine.wait_for("imagepool: installed on /dev/vda; switching off", timeout=PATIENCE)
        installed = machine.age()
        machine.switched_off(PATIENCE)
    figures(f"an installation: begun after {begun:.0f} s, done after {installed:.0f} s")


def boots_alone(disk: Path, figures: Figures) -> None:
    """The installed system, and who may log in."""
    with boot(disk, firmware="uefi", medium="disk", cards=2, writable=True) as machine:
        logged_in(machine)
        figures(f"an installed disk: logged in after {machine.age():.0f} s")
        machine.type("echo at $(findmnt -no SOURCE,FSTYPE /) $(hostname)")
        machine.wait_for(r"^at /dev/vda3 ext4 edge01\.cdn\.example", timeout=PATIENCE)
        machine.type(
            "ip -brief address show bond0; cd /sys/class/net/bond0/bonding;"
            " tr ' ' '\\n' <slaves | sort | xargs"
        )
        machine.wait_for(r"bond0 .* 10\.0\.2\.50/24 fd00:50::10/64", timeout=PATIENCE)
        machine.wait_for("eth0 eth1", timeout=PATIENCE)


def boots_by_bios(disk: Path) -> None:
    """As far as the login."""
    with boot(disk, medium="disk", cards=2, writable=True) as machine:
        asked_for_a_name(machine)
