"""The base image's contract on the real engine: what its ISOs hold, and that they boot."""

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import docker
import pytest
from docker.models.containers import Container

from tests.figures import Figures
from tests.system.qemu import Machine, boot

pytestmark = pytest.mark.system

BASE_IMAGE = os.environ.get("BASE_IMAGE") or "codersos/linux-image-creator"
NODE_CAPABILITIES = [
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"),
    *("SETUID", "SETGID", "SETFCAP", "KILL"),
]

USERS_COMMANDS = r"""#!/bin/sh -eux
echo 'hello from the user' >/srv/greeting
mkdir '/srv/a folder'; echo x >'/srv/a folder/with [odd] names'
install -m 6755 /bin/true /usr/local/bin/set-ids

mkdir -p /var/tmp/package/DEBIAN /var/tmp/package/usr/share/of-the-package
echo packed >/var/tmp/package/usr/share/of-the-package/file
printf '%s\n' 'Package: of-the-user' 'Version: 1.5' 'Architecture: all' \
    'Maintainer: u <u@example>' 'Description: a package' >/var/tmp/package/DEBIAN/control
dpkg-deb --build /var/tmp/package /var/tmp/package.deb
dpkg --install /var/tmp/package.deb

# Every line opens the console anew: the login there hangs up whoever has it open.
cat >/usr/local/bin/speak <<'END'
#!/bin/sh
say() { echo "the user's unit: $*" >/dev/ttyS0; }
say "greeting: $(cat /srv/greeting)"
say "host name: $(hostname)"
say "machine id: $(cat /etc/machine-id)"
say "package: $(cat /usr/share/of-the-package/file)"
say "apt: $(apt-get --simulate autoremove >/dev/null 2>&1 && echo works)"
say "failed units: $(systemctl list-units --failed --plain --no-legend | wc -l)"
END
chmod 755 /usr/local/bin/speak
cat >/etc/systemd/system/speak.service <<'END'
[Unit]
After=systemd-networkd.service systemd-resolved.service
[Service]
Type=oneshot
ExecStart=/usr/local/bin/speak
[Install]
WantedBy=multi-user.target
END
systemctl enable speak.service

# What a build leaves around, and what is not part of it.
mkdir -p /inbox /outbox /tmp/.hidden
touch /inbox/input /outbox/output /tmp/command /tmp/.hidden/file /tmp/.file /run/left
touch /var/lib/apt/lists/list /var/cache/apt/cache
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
"""

# Nothing of this is in the booted system (paths from the root, without the first slash).
NOT_IN_THE_SYSTEM = [
    r"toiso(/|$)",
    r"(inbox|outbox)(/|$)",
    r"\.dockerenv$",
    r"(tmp|run|proc|sys|dev)/",
    r"var/lib/apt/lists/",
    r"var/cache/apt/",
    r"usr/sbin/policy-rc\.d$",
    r".*(imagepool|mksquashfs|xorriso|isolinux|grub-mkimage|marker-of-a-mount)",
    r"etc/ssh/ssh_host_",
]
REPLACED = {"etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/machine-id"}
LEFT_EMPTY = {"tmp", "run", "proc", "sys", "dev", "var/lib/apt/lists", "var/cache/apt"}
NOT_COMPARED = "|".join([*NOT_IN_THE_SYSTEM, *(f"{path}$" for path in REPLACED | LEFT_EMPTY)])


@dataclass(frozen=True)
class Entry:
    """A file as `ls -l` shows it; `size` is 0 for folders."""

    mode: str
    owner: str
    size: int

    @classmethod
    def read(cls, mode: str, owner: str, size: str) -> "Entry":
        return cls(mode, owner, 0 if mode.startswith("d") else int(size))


@dataclass(frozen=True)
class Build:
    """An ISO made in a container, unpacked into `folder`, and the files the container had."""

    iso: Path
    folder: Path
    in_container: dict[str, Entry]
    container_id: str

    @property
    def squashfs(self) -> Path:
        return self.folder / "live" / "filesystem.squashfs"

    def content(self, path: str) -> str:
        """Of a file in the squashfs."""
        return output_of("sqfscat", self.squashfs, path)


def output_of(*command: str | Path) -> str:
    """Standard output of a program of this machine; bytes of no encoding survive."""
    done = subprocess.run(command, capture_output=True, check=True)
    return done.stdout.decode(errors="surrogateescape")


def run(container: Container, *command: str, workdir: str = "/") -> bytes:
    """Standard output of a command that must succeed."""
    code, (out, errors) = container.exec_run(list(command), demux=True, workdir=workdir)
    assert code == 0, f"{command}: {code}\n{(errors or b'').decode(errors='replace')}"
    return out or b""


def run_as_script(container: Container, text: str) -> None:
    run(container, "/bin/sh", "-euc", text)


def fetch(container: Container, path: str, to: Path) -> Path:
    """A file of the container, copied into the folder `to`."""
    chunks, _ = container.get_archive(path)
    packed = to / "fetched.tar"
    with packed.open("wb") as file:
        file.writelines(chunks)
    fetched = to / Path(path).name
    with tarfile.open(packed) as archive, fetched.open("wb") as file:
        content = archive.extractfile(fetched.name)
        assert content is not None
        shutil.copyfileobj(content, file)
    packed.unlink()
    return fetched


def unpack(iso: Path, to: Path) -> Path:
    output_of("xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/", to)
    output_of("chmod", "-R", "u+w", to)  # so that pytest can remove it
    return to


def in_container(container: Container) -> dict[str, Entry]:
    """Every file that could be in the ISO."""
    left_out = ["proc", "sys", "dev", "toiso", "var/lib/apt/lists", "var/cache/apt"]
    pruned = [word for path in left_out for word in ("-path", f"/{path}", "-prune", "-o")]
    listed = run(container, "find", "/", *pruned, "-printf", r"%M %U/%G %s %P\0")
    lines = listed.decode(errors="surrogateescape").rstrip("\0").split("\0")
    rows = (line.split(" ", 3) for line in lines)
    return {path: Entry.read(mode, owner, size) for mode, owner, size, path in rows if path}


def in_squashfs(squashfs: Path) -> dict[str, Entry]:
    lines = output_of("unsquashfs", "-lln", squashfs).split("\n")
    found = {}
    for line in lines:
        mode, owner, size, _, _, path = [*line.split(None, 5), *6 * [""]][:6]
        if path.startswith("squashfs-root/"):
            name = path.removeprefix("squashfs-root/")
            name = name.split(" -> ")[0] if mode.startswith("l") else name
            found[name] = Entry.read(mode, owner, size)
    return found


@contextmanager
def container_of(engine: docker.DockerClient, **options: object) -> Iterator[Container]:
    container = engine.containers.run(
        BASE_IMAGE,
        ["sleep", "3600"],
        detach=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network_mode="none",
        **options,
    )
    try:
        yield container
    finally:
        container.remove(force=True, v=True)


@contextmanager
def both_firmwares(iso: Path, medium: Literal["cdrom", "disk"]) -> Iterator[dict[str, Machine]]:
    """At the same time, on one processor each."""
    with (
        boot(iso, firmware="bios", medium=medium, processors=1) as bios,
        boot(iso, firmware="uefi", medium=medium, processors=1) as uefi,
    ):
        yield {"BIOS": bios, "UEFI": uefi}


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    client.images.get(BASE_IMAGE)
    yield client
    client.close()


@pytest.fixture(scope="module")
def build(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Made as a node does it, but without any capability; the node's mounts hold a marker."""
    mounts = {}
    for name, mode in (("in", "ro"), ("out", "rw")):
        folder = tmp_path_factory.mktemp(name)
        (folder / "marker-of-a-mount").write_text(name)
        mounts[str(folder)] = {"bind": f"/toiso/.imagepool/{name}", "mode": mode}
    folder = tmp_path_factory.mktemp("iso")
    with container_of(engine, volumes=mounts, mem_limit="512m") as container:
        run_as_script(container, USERS_COMMANDS)
        assert run(container, "ls", "/toiso/.imagepool/in") == b"marker-of-a-mount\n"
        assert run(container, "/toiso/command.sh", "-q") == b""
        path = run(container, "/toiso/iso_path.sh").decode()
        iso = fetch(container, path, folder)
        listing = in_container(container)
        container_id = container.id
    assert container_id is not None
    return Build(iso, unpack(iso, folder / "unpacked"), listing, container_id)


def test_the_system_is_the_container_and_nothing_else(build: Build) -> None:
    """Every file with its owner, mode (set-id bits too) and size; none more, none less."""
    expected = {
        path: entry
        for path, entry in build.in_container.items()
        if not re.match(NOT_COMPARED, path)
    }
    found = in_squashfs(build.squashfs)
    assert len(expected) > 5000
    assert {
        path: entry for path, entry in found.items() if not re.match(NOT_COMPARED, path)
    } == expected
    assert found["usr/bin/su"].mode == "-rwsr-xr-x"
    assert found["usr/local/bin/set-ids"].mode == "-rwsr-sr-x"
    assert found["usr/bin/chage"].owner == "0/42"


def test_nothing_of_ours_is_in_the_system(build: Build) -> None:
    found = in_squashfs(build.squashfs)
    ours = [path for path in found if any(re.match(ours, path) for ours in NOT_IN_THE_SYSTEM)]
    assert ours == []
    assert found.keys() >= LEFT_EMPTY
    assert {found[path].mode for path in ("proc", "sys")} == {"dr-xr-xr-x"}
    assert found["tmp"].mode == "drwxrwxrwt"


def test_the_engines_files_are_replaced(build: Build) -> None:
    """The engine mounts its own over them, with the container's id as host name."""
    assert build.content("etc/hostname") == "live\n"
    assert "127.0.1.1 live\n" in build.content("etc/hosts")
    assert build.content("etc/machine-id") == ""
    assert in_squashfs(build.squashfs)["etc/resolv.conf"].mode.startswith("l")
    for path in ("etc/hostname", "etc/hosts"):
        assert build.container_id[:12] not in build.content(path)


def test_what_the_user_did_is_in_the_system(build: Build) -> None:
    assert build.content("srv/greeting") == "hello from the user\n"
    assert build.content("srv/a folder/with \\[odd\\] names") == "x\n"
    assert build.content("usr/share/of-the-package/file") == "packed\n"
    assert "Package: of-the-user\n" in build.content("var/lib/dpkg/status")


def test_the_iso_describes_itself(build: Build, figures: Figures) -> None:
    """Packages, size and checksums, as the contract has them."""
    live = build.folder / "live"
    packages = dict(
        line.split("\t") for line in (live / "filesystem.packages").read_text().splitlines()
    )
    assert packages["of-the-user"] == "1.5"
    assert packages["live-boot"]
    size = int((live / "filesystem.size").read_text())
    files = sum(entry.size for entry in build.in_container.values())
    assert 0.8 * files < size < 1.2 * files
    checked = subprocess.run(
        ["md5sum", "--check", "--strict", "--quiet", "md5sum.txt"], cwd=build.folder, check=True
    )
    assert checked.returncode == 0
    assert "./live/filesystem.squashfs" in (build.folder / "md5sum.txt").read_text()
    figures(f"an ISO of the base image: {build.iso.stat().st_size / 1e6:.0f} MB")


def test_it_boots_as_a_cd(build: Build, figures: Figures) -> None:
    """By BIOS and by UEFI, to what the user's unit says."""
    promised = [
        r"greeting: hello from the user$",
        r"host name: live$",
        r"machine id: (?!0123456789abcdef)[0-9a-f]{32}$",
        r"package: packed$",
        r"apt: works$",
        r"failed units: 0$",
    ]
    with both_firmwares(build.iso, "cdrom") as machines:
        for name, machine in machines.items():
            for line in promised:
                machine.wait_for(f"the user's unit: {line}", timeout=200)
            figures(f"booted by {name} to a user's unit: {machine.age():.0f} s")


def test_it_boots_as_a_disk(build: Build) -> None:
    """As far as it differs from a CD: boot loader, kernel, and initrd have found their files."""
    with both_firmwares(build.iso, "disk") as machines:
        for machine in machines.values():
            machine.wait_for(r"Mounting \"/run/live/medium/live/filesystem.squashfs\"", timeout=100)


def test_it_works_again_with_a_nodes_capabilities(engine: docker.DockerClient) -> None:
    """Twice in one container; without -q the ISO goes to standard output, and nothing else does."""
    with container_of(engine, cap_add=NODE_CAPABILITIES, mem_limit="512m") as container:
        run(container, "/toiso/command.sh", "-q")
        run_as_script(container, "/toiso/command.sh >/var/tmp/streamed")
        run(container, "cmp", "/var/tmp/streamed", "/toiso/live.iso")
        assert run(container, "sh", "/toiso/iso_path.sh", workdir="/etc") == b"/toiso/live.iso"


def test_settings_and_a_kernel_of_the_user(engine: docker.DockerClient, tmp_path: Path) -> None:
    """The kernel that was installed last is the one that boots, whatever its version."""
    with container_of(engine) as container:
        run_as_script(
            container,
            r"""
            cat >>/toiso/configuration.sh <<'END'
hostname=kiosk
volume_id=KIOSK
iso_image=/srv/results/kiosk.iso
compression=lz4
kernel_options="$kernel_options splash='a & b/c'"
END
            echo 'a kernel' >/boot/vmlinuz-1.0
            echo 'its initrd' >/boot/initrd.img-1.0
            echo 'without an initrd' >/boot/vmlinuz-99.0
            """,
        )
        run(container, "/toiso/command.sh", "-q")
        path = run(container, "/toiso/iso_path.sh").decode()
        assert path == "/srv/results/kiosk.iso"
        iso = fetch(container, path, tmp_path)
    folder = unpack(iso, tmp_path / "unpacked")
    assert (folder / "live" / "vmlinuz").read_text() == "a kernel\n"
    assert (folder / "live" / "initrd.img").read_text() == "its initrd\n"
    for menu in ("isolinux/isolinux.cfg", "boot/grub/grub.cfg"):
        assert "console=tty0 console=ttyS0,115200 splash='a & b/c'\n" in (folder / menu).read_text()
    assert (
        output_of("sqfscat", folder / "live" / "filesystem.squashfs", "etc/hostname") == "kiosk\n"
    )
    with iso.open("rb") as file:
        file.seek(16 * 2048 + 40)  # the volume identifier of ISO 9660's primary volume descriptor
        assert file.read(32) == b"KIOSK".ljust(32)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("rm /boot/initrd.img-*", b"no kernel with an initrd"),
        ("echo hidden >/srv/x; chmod 0 /srv/x", b"root cannot read"),
    ],
)
def test_a_failure_leaves_no_iso(engine: docker.DockerClient, spoil: str, words: bytes) -> None:
    """Not even that of the run before, which would pass for the result."""
    with container_of(engine) as container:
        run(container, "/toiso/command.sh", "-q")
        run_as_script(container, spoil)
        code, output = container.exec_run(["/toiso/command.sh", "-q"])
        assert (code, words in output) == (1, True), output
        code, _ = container.exec_run(["sh", "-c", "test -e /toiso/live.iso || test -e /toiso/work"])
        assert code == 1
