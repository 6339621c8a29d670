"""What a build can do, on a real engine of the tests' own: what it sees of the machine and the
world, what it may use up, what it can make a node take.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from node.config import CAPABILITIES
from node.core.confinement import granted
from node.engines.docker import DockerEngine
from node.engines.errors import EngineError
from protocol.model.build import Build, Result, Stage
from protocol.model.recipe import (
    DockerfileBase,
    ImageOutput,
    InputFile,
    IsoOutput,
    OutboxOutput,
    Output,
    PathsOutput,
    Recipe,
    StreamOutput,
    TextContent,
)
from protocol.model.request import BuildRequest, Guidance
from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService
from tests.programs import ended, log_of, until
from tests.system.engine import shell_tree
from tests.system.site import (
    INTERNET,
    LAN,
    MACHINE,
    METADATA,
    NAME,
    Node,
    Site,
    a_site,
    in_image,
    needs,
    run,
)

pytestmark = pytest.mark.system

MIB = 1 << 20
OUT = "/toiso/.imagepool/out"
LIMITS = {
    "memory": 256 * MIB,
    "processes": 100,
    "cpus": 1,
    "build_disk": 300 * MIB,
    "disk_check": 0.1,
    "file_size": 64 * MIB,
    "log_limit": 4 * MIB,
    "dockerfiles": True,
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An engine, and the world around it."""
    with a_site(tmp_path_factory.mktemp("s")) as site:
        yield site


@pytest.fixture(scope="module")
def image(site: Site) -> str:
    """A shell and some programs."""
    return site.engine.load(shell_tree(), "ENV PATH=/bin", "VOLUME /volume")


@pytest.fixture(scope="module")
def node(site: Site, image: str) -> Iterator[Node]:
    """One that keeps its builds to themselves, and has looked how the engine confines them."""
    with site.node("node", slots=3, base_image=image, **LIMITS) as node:
        assert node.get("/readyz") == (200, {"status": "ready", "problems": []})
        yield node


def said(log: str) -> dict[str, str]:
    """Lines `name: what`, of a log."""
    return dict(re.findall(r"^(\w+): (.*)$", log, re.MULTILINE))


TRY = """\
try() { # NAME COMMAND...: in the background; what came out, or that nothing did
  name=$1; shift
  { words=$(busybox timeout 5 "$@" 2>/dev/null | head -c 60 | head -n 1)
  echo "$name: ${words:-refused}"; } &
}
get() { # NAME HOST PORT PATH: the last line of what a web server there answers
  name=$1; shift
  { words=$({ printf 'GET %s HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n' "$3"; sleep 2; } |
    busybox timeout 5 busybox nc -w 3 $1 $2 2>/dev/null | busybox tail -n 1 | head -c 60)
  echo "$name: ${words:-refused}"; } &
}
gateway=$(busybox ip route | busybox awk '/^default/ { print $3 }')
"""


class TestRights:
    """What root in a build is."""

    def test_a_listing(self, node: Node, image: str) -> None:
        """The capabilities that are set and no others; no privilege to be gained, calls filtered;
        no device but those that every container has; nothing of the kernel that can be written to.
        """
        text = """\
        while read -r key value; do case $key in CapEff:|CapBnd:|NoNewPrivs:|Seccomp:)
          echo "${key%:}: $value";; esac; done </proc/self/status
        cd /dev; echo "devices:" $(for d in *; do [ -L $d ] || [ ! -c $d ] || echo $d; done)
        echo "blocks:" $(for d in *; do [ -b $d ] && echo $d; done)
        busybox find /proc/[a-z]* /sys -type f -perm -200 2>/dev/null >/tmp/files
        echo "seen: $(wc -l </tmp/files)"
        echo "writable:" $(while read -r f; do case $f in /proc/self*|/proc/thread-self*) ;;
          *) [ -w "$f" ] && (: >>"$f") 2>/dev/null && echo "$f";; esac; done </tmp/files)
        echo "mounts:" $(busybox awk '$4 ~ /^rw/ { print $2 }' /proc/self/mounts)
        try mknod busybox sh -c 'mknod /tmp/disk b 254 0 && echo made'
        try mount busybox sh -c 'mount -t tmpfs none /mnt && echo mounted'
        try remount busybox sh -c 'mount -o remount,rw /proc/sys && echo mounted'
        try unshare busybox sh -c 'busybox unshare -U -r busybox mount -t tmpfs x /mnt && echo yes'
        try hostname busybox sh -c 'hostname other && echo set'
        try chroot busybox sh -c 'chroot / /bin/echo may'
        try inputs busybox sh -c 'echo x >/toiso/.imagepool/in/x && echo written'
        try plan busybox sh -c 'echo x >/toiso/.imagepool/in/plan.sh && echo written'
        wait
        """
        build, log = node.built(image, TRY + text, needs=needs(network=False))
        assert build.result is Result.SUCCEEDED, log
        seen = said(log)
        assert set(granted(seen["CapEff"])) == set(granted(seen["CapBnd"])) == set(CAPABILITIES)
        assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
        allowed = "console full null ptmx random tty urandom zero".split()  # noqa: SIM905
        assert set(seen["devices"].split()) <= set(allowed), seen
        assert not seen.get("blocks")
        assert int(seen["seen"]) > 100
        # Who opens these is told when it waits for processor, memory or disk; nothing changes.
        assert all(f.startswith("/proc/pressure/") for f in seen.get("writable", "").split()), seen
        # Masked files and folders are writable nowhere that matters: empty tmpfs, or /dev/null.
        mounts = set(seen["mounts"].split())
        assert mounts <= {
            *("/", "/proc", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/dev/console"),
            "/volume",  # which the image asks for
            *("/etc/resolv.conf", "/etc/hostname", "/etc/hosts", OUT),
            *("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"),
            *("/proc/latency_stats", "/proc/acpi", "/proc/scsi"),
            "/sys/fs/cgroup",  # a tmpfs where version 1 has its folders, which are read-only
        }, mounts
        tried = ("mknod", "mount", "remount", "unshare", "hostname", "inputs", "plan")
        assert {name: seen[name] for name in tried} == dict.fromkeys(tried, "refused")
        assert seen["chroot"] == "may"

    def test_the_engine(self, site: Site, node: Node, image: str) -> None:
        """Its socket is nowhere, and it serves on no port."""
        path = site.engine.socket.removeprefix("unix://")
        text = f"""\
        busybox find / -xdev -name '*.sock' 2>/dev/null | busybox sed 's/^/found: /'
        for f in {path} /var/run/docker.sock /run/docker.sock; do
          [ -e $f ] && echo "found: $f"; done
        get plain $gateway 2375 /version; get lan {MACHINE} 2375 /version
        wait
        """
        build, log = node.built(image, TRY + text, needs=needs())
        assert build.result is Result.SUCCEEDED, log
        assert said(log) == {"plain": "refused", "lan": "refused"}


def probes(port: int) -> str:
    """Tries at everything around; the shell has TRY."""
    return f"""\
    get own 127.0.0.1 {port} /status
    get gateway $gateway {port} /status
    get machine {MACHINE} {port} /status
    get lan {LAN} 80 /
    get metadata {METADATA} 80 /latest/meta-data/
    get internet {INTERNET} 80 /
    found=$(busybox timeout 5 busybox nslookup {NAME} 2>/dev/null |
      busybox awk '/^Address: / {{ print $2 }}')
    get named ${{found:-0.0.0.0}} 80 /
    wait
    """


CLOSED = {
    **dict.fromkeys(("own", "gateway", "machine", "lan", "metadata"), "refused"),
    "internet": INTERNET,
    "named": INTERNET,
}


class TestNetwork:
    """Whom it reaches."""

    def test_nobody_without_a_network(self, node: Node, image: str) -> None:
        """There is loopback, its own."""
        text = probes(node.port) + "echo interfaces: $(ls /sys/class/net)\n"
        _, log = node.built(image, TRY + text, needs=needs(network=False))
        assert said(log) == {**dict.fromkeys(CLOSED, "refused"), "interfaces": "lo"}

    def test_the_internet_and_nothing_nearer(self, node: Node, image: str) -> None:
        """By address and by name; no IPv6."""
        text = probes(node.port) + "echo v6: $(busybox grep -vc lo /proc/net/if_inet6)\n"
        _, log = node.built(image, TRY + text, needs=needs())
        assert said(log) == {**CLOSED, "v6": "0"}

    def test_a_step_of_a_dockerfile(self, node: Node, image: str) -> None:
        """It may do more than a command, but reaches no more."""
        file = f"FROM {image}\nCOPY probe /probe\nRUN sh /probe\n"
        probe = InputFile("probe", TextContent(TRY + probes(node.port)))
        base = DockerfileBase(TextContent(file), context=(probe,))
        wanted = BuildRequest(Recipe(base=base, output=ImageOutput()), Guidance(needs=needs()))
        build, log = node.asked(wanted)
        assert build.result is Result.SUCCEEDED, log
        assert CLOSED.items() <= said(log).items(), log

    def test_what_is_open_elsewhere(self, site: Site, node: Node, image: str) -> None:
        """The same tries on the engine's own network get through: they would have."""
        with site.node("open", build_network="open", base_image=image) as other:
            _, log = other.built(image, TRY + probes(other.port), needs=needs())
        seen = said(log)
        assert (seen["lan"], seen["metadata"], seen["internet"]) == (LAN, METADATA, INTERNET)
        assert seen["gateway"] != "refused"
        assert seen["machine"] != "refused"

    def test_none_for_nobody(self, site: Site, image: str) -> None:
        """Where the node gives none."""
        with site.node("none", build_network="none", base_image=image) as other:
            _, log = other.built(image, TRY + probes(other.port), needs=needs())
        assert said(log) == dict.fromkeys(CLOSED, "refused")

    def test_an_allowed_network(self, site: Site, image: str) -> None:
        """It is reached, the machine's own address in it is not."""
        allowed = {"build_networks_allowed": "192.168.77.0/24", "base_image": image}
        with site.node("allowed", **allowed) as other:
            _, log = other.built(image, TRY + probes(other.port), needs=needs())
        assert said(log) == {**CLOSED, "lan": LAN}

    def test_another_build(self, site: Site, node: Node, image: str) -> None:
        """Two that run at the same time do not reach each other."""
        serve = "busybox ip -4 -o address show eth0; exec busybox nc -l -p 8000 </etc/passwd\n"

        async def meet(client: HttpService) -> str:
            one = await client.submit(LOCAL, in_image(image, serve, needs=needs()))
            await until(client, one.id, lambda build: build.log_size > 20)
            address = re.findall(r"inet ([\d.]+)/", (await log_of(client, one.id)).decode())[0]
            text = f"get other {address} 8000 /\nwait\n"
            two = await client.submit(LOCAL, in_image(image, TRY + text, needs=needs()))
            two = await ended(client, two.id, 60)
            await client.cancel(LOCAL, one.id)
            return (await log_of(client, two.id)).decode()

        assert said(node.do(meet)) == {"other": "refused"}

    def test_rules_come_back(self, site: Site, node: Node, image: str) -> None:
        """Flushed or doubled by somebody, or the engine was restarted: the next build finds them
        there.
        """
        again = re.findall(r"^-A (PREROUTING -i ip-\S+ .*)$", rules(site), re.MULTILINE)
        assert again
        doubled = [f"iptables -t mangle -I {rule}" for rule in again]
        for harm in ("iptables -t mangle -F", "iptables -t mangle -F PREROUTING", *doubled, ""):
            if harm:
                site.script(harm)
            else:
                site.engine.stop()
                site.engine.start()
                node.get("/readyz")
            _, log = node.built(image, TRY + probes(node.port), needs=needs())
            assert said(log) == CLOSED, harm

    def test_nothing_stays_behind(self, site: Site, image: str) -> None:
        """With its node go the network and the rules, when no container needs them."""
        with site.node("passing", base_image=image) as other:
            other.built(image, "true\n", needs=needs())
            name = str(other.get("/api/v1/status")[1]["id"])[:10]
            before = networks(site), rules(site)
        assert f"imagepool-{name}" in before[0]
        assert f"IMAGEPOOL-{name}" in before[1]
        assert f"imagepool-{name}" not in networks(site)
        assert f"IMAGEPOOL-{name}" not in rules(site)

    def test_a_node_without_the_right(self, site: Site, image: str) -> None:
        """It says so, and takes no build."""
        through = ("setpriv", "--bounding-set=-net_admin")
        with site.node("cannot", through=through, base_image=image) as other:
            status, said = other.get("/readyz")
            assert (status, said["problems"][0]["part"]) == (503, "network")
            assert re.fullmatch(CANNOT, said["problems"][0]["detail"])
            assert other.get("/status")[1]["status"] == "busy"

    def test_a_node_in_another_namespace(self, site: Site, image: str) -> None:
        """Its rules would be for nothing, and it knows."""
        with site.node("apart", through=("unshare", "--net"), base_image=image) as other:
            other.process.line(f".* no build is taken: {CANNOT} node=.*")


CANNOT = r"builds cannot be kept off this machine: .*; let the node run as root or .*"


def networks(site: Site) -> list[str]:
    """Names of those on the engine."""
    with site.engine.client() as client:
        return [network["Name"] for network in client.networks()]


def rules(site: Site) -> str:
    """Those of the table that is ours, of IPv4 and IPv6."""
    inside = ("ip", "netns", "exec", site.namespace)
    return "".join(run(*inside, f"{name}tables", "-t", "mangle", "-S") for name in ("ip", "ip6"))


class TestNetworksOfTheEngine:
    """What the node asks of it, beside nodes."""

    @pytest.fixture
    def engine(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerEngine]:
        """The engine, as a node speaks to it."""
        monkeypatch.setenv("DOCKER_HOST", site.engine.socket)
        engine = DockerEngine()
        yield engine
        engine.close()

    def test_a_network_of_ours(self, site: Site, engine: DockerEngine, image: str) -> None:
        """Made once, with the MTU of the engine's own; it goes when no container uses it."""
        for _ in range(2):
            engine.provide_network("ours", "ip-ours", {"a": "b"})
        with site.engine.client() as client:
            seen = client.inspect_network("ours")
            assert seen["Labels"] == {"a": "b"}
            assert not seen["EnableIPv6"]
            mtu = "com.docker.network.driver.mtu"
            assert seen["Options"][mtu] == client.inspect_network("bridge")["Options"][mtu]
            config = {"Image": image, "Entrypoint": ["/bin/sleep", "1000"]}
            config["HostConfig"] = {"NetworkMode": "ours"}
            container = client.create_container_from_config(config)["Id"]
            client.start(container)
            assert not engine.remove_network("ours")
            client.remove_container(container, force=True)
        assert engine.remove_network("ours")
        assert engine.remove_network("ours")

    @pytest.mark.parametrize(
        ("options", "labels", "words"),
        [
            ({}, {"a": "b"}, "is no bridge called ip-theirs"),
            ({"com.docker.network.bridge.name": "ip-theirs"}, {"a": "b"}, "speak to each other"),
            (
                {
                    "com.docker.network.bridge.name": "ip-theirs",
                    "com.docker.network.bridge.enable_icc": "false",
                },
                {"a": "other"},
                "is not of this node",
            ),
        ],
    )
    def test_another_of_that_name(
        self, site: Site, engine: DockerEngine, options: Any, labels: Any, words: str
    ) -> None:
        """It is not taken for ours, and the words say what to do."""
        with site.engine.client() as client:
            client.create_network("theirs", "bridge", options, labels=labels)
        try:
            with pytest.raises(EngineError, match=f"{words}.* docker network rm theirs"):
                engine.provide_network("theirs", "ip-theirs", {"a": "b"})
        finally:
            assert engine.remove_network("theirs")


FORK_BOMB = """\
echo 'bomb() { bomb & bomb & while :; do :; done; }; bomb' >/tmp/bomb
busybox sh /tmp/bomb & exec busybox sleep 1000
"""
MEMORY = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done\n"
SHARED = """\
busybox dd if=/dev/zero of=/dev/shm/x bs=1M
i=0; while [ $i -lt 30 ]; do i=$((i+1)); busybox dd if=/dev/zero of=/sys/fs/cgroup/$i bs=1M count=20
done
"""
DISK = """\
i=0; while :; do i=$((i+1)); busybox dd if=/dev/zero of={}/$i bs=1M count=20; done 2>/dev/null
"""
HUGE = (
    "busybox dd if=/dev/zero of=/huge bs=1M count=70; echo dd: $?; ls -l /huge; truncate -s 1G /x\n"
)
LOG = "while :; do echo 0123456789012345678901234567890123456789; done\n"


class TestExhaustion:
    """What it can use up: its own share. `Node.built` sees that the node answers meanwhile."""

    def test_processes(self, node: Node, image: str) -> None:
        """A fork bomb stays below its limit, and is ended by the build's time."""
        build, log = node.built(image, FORK_BOMB, needs=needs(time_limit=8.0, network=False))
        assert build.result is Result.TIMED_OUT, build.reason
        assert "can't fork" in log.lower() or "resource temporarily" in log.lower(), log[-300:]

    def test_memory(self, node: Node, image: str) -> None:
        """Who takes too much is killed."""
        build, _ = node.built(image, MEMORY, needs=needs(network=False))
        assert build.result is Result.FAILED
        assert build.commands[0].exit_code == 137, build

    def test_memory_that_looks_like_a_disk(self, node: Node, image: str) -> None:
        """What lies in a tmpfs counts as memory, or the tmpfs is smaller."""
        build, log = node.built(image, SHARED, needs=needs(network=False))
        assert "File size limit exceeded" in log or "No space left" in log, log  # of /dev/shm
        if "Read-only file system" not in log:  # control groups of version 1
            assert build.commands[0].exit_code == 137, build
            assert "the memory limit was reached" in log

    @pytest.mark.parametrize("folder", ["/tmp", OUT, "/outbox", "/volume"])
    def test_disk(self, node: Node, image: str, folder: str) -> None:
        """In its layer, in what the host shows it, and in volumes that its image asks for: ended at
        its limit.
        """
        build, _ = node.built(
            image, DISK.format(folder), output=OutboxOutput(), needs=needs(network=False)
        )
        assert build.result is Result.FAILED
        assert re.fullmatch(r"it wrote \d+ MiB to the disk, its limit is 300 MiB", build.reason)

    def test_a_huge_file(self, node: Node, image: str) -> None:
        """Cut off at the limit, whether it is written or only said to be so long."""
        build, log = node.built(image, HUGE, needs=needs(network=False))
        assert build.result is Result.FAILED
        assert re.search(r" 67108864 .* /huge", log), log
        assert "File too large" in log or build.commands[0].exit_code == 153, log

    def test_an_endless_log(self, node: Node, image: str) -> None:
        """Cut off; the build ends by its time."""
        build, log = node.built(image, LOG, needs=needs(time_limit=10.0, network=False))
        assert build.result in (Result.TIMED_OUT, Result.FAILED)
        assert len(log) < 5 * MIB


WORD = "what-only-the-host-has"
KINDS: dict[str, Output] = {
    "iso": IsoOutput(),
    "paths": PathsOutput(("/srv/file", "/srv/lo*")),
    "outbox": OutboxOutput(),
    "stream": StreamOutput(),
}
HOSTILE = """\
secret={secret}; out={out}
leave() {{
  for name in result log stream exit progress names unmatched reserve; do
    rm -rf $out/$name; ln -s $secret $out/$name
  done
  rm -rf $out/results; mkdir -p $out/results /srv /outbox/sub
  ln -s $secret $out/results/0; ln -s $secret $out/results/1
  ln -sf $secret /toiso/image.iso; ln -sf $secret /srv/file; ln -sf $secret /srv/lose
  ln -sf $secret /outbox/link; ln -sf $folder /outbox/sub/folder; ln -sf / /outbox/root
  rm -rf $out/.result $out/part; ln -s $secret $out/part
}}
folder=${{secret%/*}}
leave 2>/dev/null
(while :; do leave; done) >/dev/null 2>&1 &
setsid sh -c 'while :; do ln -sf {secret} {out}/result; ln -sf {secret} {out}/stream; done' \
  >/dev/null 2>&1 &
[ -e $secret ] && echo "it sees the secret"
ls -R /outbox 2>/dev/null | head -n 3
"""


class TestEscapes:
    """Whatever lies where results are looked for, nothing of the host becomes one."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_links(self, site: Site, node: Node, image: str, kind: str) -> None:
        """In place of each file that the node reads, kept there by processes that stay behind."""
        secret = site.folder / "secret"
        secret.write_text(WORD)
        text = HOSTILE.format(secret=secret, out=OUT)
        wanted = in_image(image, text, output=KINDS[kind], needs=needs(network=False))

        async def taken(client: HttpService) -> tuple[Build, bytes]:
            build = await ended(client, (await client.submit(LOCAL, wanted)).id, 60)
            found = [await log_of(client, build.id)]
            for artifact in build.artifacts:
                opened = await client.open_artifact(LOCAL, build.id, artifact.name)
                found += [piece async for piece in opened.stream]
            return build, b"".join(found)

        build, data = node.do(taken)
        assert build.stage is Stage.STOPPED
        assert b"it sees the secret" not in data
        assert WORD.encode() not in data, build
        assert secret.read_text() == WORD
        assert node.get("/readyz")[0] == 200

    @pytest.mark.parametrize("form", ["docker", "rootfs"])
    def test_an_image_of_links(self, site: Site, node: Node, image: str, form: Any) -> None:
        """They are in it as links."""
        secret = site.folder / "secret"
        secret.write_text(WORD)
        file = f"FROM {image}\nRUN ln -s {secret} /link && ln -s {secret} /etc/x\n"
        base = DockerfileBase(TextContent(file))
        recipe = Recipe(base=base, output=ImageOutput(format=form))

        async def taken(client: HttpService) -> bytes:
            accepted = await client.submit(LOCAL, BuildRequest(recipe, Guidance(needs=needs())))
            build = await ended(client, accepted.id, 60)
            assert build.result is Result.SUCCEEDED, build
            opened = await client.open_artifact(LOCAL, build.id, build.artifacts[0].name)
            return b"".join([piece async for piece in opened.stream])

        assert WORD.encode() not in node.do(taken)
