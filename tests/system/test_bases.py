"""Bases on the real engine, through the node: images of a Dockerfile, of a downloaded file system,
of an earlier build; disks; images as results. What is made is what was asked for, and nothing else
stays on the engine.
"""

import asyncio
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import lzma
import tarfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import docker
import pytest
from docker.errors import ImageNotFound
from msgspec.structs import replace

from node.core.resume import Way, way_on
from protocol.model.build import Build, Position, Result, Stage, built_image
from protocol.model.recipe import (
    Base,
    BuiltBase,
    Command,
    DockerfileBase,
    DownloadBase,
    FetchedContent,
    ImageOutput,
    InputFile,
    NoOutput,
    Output,
    Recipe,
    TextContent,
    UploadedContent,
)
from protocol.model.request import BuildRequest, Forward, Guidance, Needs
from protocol.ports.service import LOCAL
from tests.programs import Program, a_node, ended, log_of
from tests.system import engine as tools

pytestmark = [pytest.mark.system, pytest.mark.gen_test(timeout=90)]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """An image with a shell."""
    try:
        yield tools.make_image(tools.shell_tree(), "ENV PATH=/bin")
    finally:
        tools.remove_everything()


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    """The engine itself."""
    client = docker.APIClient()
    yield client
    client.close()


@contextlib.asynccontextmanager
async def a_docker_node(folder: Path, **settings: Any) -> AsyncIterator[Program]:
    """A node on the real engine; the images that it made are forgotten with it."""
    async with a_node(folder, engine="docker", **settings) as node:
        try:
            yield node
        finally:
            for build in tuple(node.parts.ledger.board):
                for name in node.parts.engine.images():
                    if name.startswith(f"imagepool/{build.id}:"):
                        node.parts.engine.forget_image(name)


async def submitted(
    node: Program,
    base: Base,
    *scripts: str,
    output: Output | None = None,
    forward: Forward | None = None,
    **needs: Any,
) -> Build:
    """A build on that base, just accepted."""
    commands = tuple(
        Command(f"command {i}", text=f"#!/bin/sh\n{text}\n") for i, text in enumerate(scripts)
    )
    recipe = Recipe(commands, base=base, output=output or NoOutput())
    request = BuildRequest(recipe, Guidance(needs=Needs(**needs)))
    return await node.service.submit(LOCAL, request, forward)


async def built(
    node: Program,
    base: Base,
    *scripts: str,
    output: Output | None = None,
    forward: Forward | None = None,
    **needs: Any,
) -> tuple[Build, str]:
    """(the build, its log) when it has stopped."""
    build = await submitted(node, base, *scripts, output=output, forward=forward, **needs)
    build = await ended(node.service, build.id, 60)
    return build, (await log_of(node.service, build.id)).decode("utf-8", "replace")


def from_above() -> Forward:
    """Of a scheduler, which has given the node what the build needs: bytes of a build that the node
    knows nothing of.
    """
    return Forward(id=token_hex(16), origin="5" * 40, attempt=1)


def of_lines(*lines: str, **more: Any) -> DockerfileBase:
    """A Dockerfile of these lines."""
    return DockerfileBase(TextContent("\n".join(lines) + "\n"), **more)


def ours(client: docker.APIClient, build: Build) -> dict[str, Any]:
    """What the engine says of the image that a build made. Raises ImageNotFound."""
    return dict(client.inspect_image(built_image(build.id)))


def nameless(client: docker.APIClient) -> set[str]:
    """Images on the engine that only other images stand on, or nothing."""
    return {one["Id"] for one in client.images(all=True, filters={"dangling": True})}


def said_before(log: str, *words: str) -> bool:
    """Whether all these lines are there, in this order."""
    places = [f"\n{log}".find(f"\n{word}\n") for word in words]
    return -1 not in places and places == sorted(places)


class TestDockerfile:
    """An image that the node builds."""

    async def test_a_dockerfile_with_a_context(self, tmp_path, image, client) -> None:
        """Its files are there, with their modes; its output is in the log, as a step; commands run
        in what it made, which carries our labels.
        """
        base = of_lines(
            f"FROM {image}",
            "COPY etc /etc/from",
            "COPY Dockerfile run /",
            "RUN /run && echo made > /file",
            "ENV COLOUR=green",
            context=(
                InputFile("etc/a/b", TextContent("b's text\n")),
                InputFile("run", TextContent("#!/bin/sh\necho it ran\n"), executable=True),
                InputFile("Dockerfile", TextContent("no Dockerfile at all\n")),
            ),
        )
        script = "cat /file /etc/from/a/b /Dockerfile; echo $COLOUR; ls /"
        async with a_docker_node(tmp_path) as node:
            build, log = await built(node, base, script)
            assert build.result is Result.SUCCEEDED, log
            assert said_before(log, "it ran", "made", "b's text", "no Dockerfile at all", "green")
            labels = ours(client, build)["Config"]["Labels"]
            assert labels["imagepool.build"] == build.id
            assert labels["imagepool.attempt"] == "1"
            assert labels["imagepool.node"] == node.id
            script_status, added = build.commands
            assert (added.name, added.added, added.exit_code) == ("build the image", True, 0)
            assert added.end is not None
            assert "it ran\n" in log[added.start : added.end]
            assert script_status.exit_code == 0
            assert "it ran" not in log[script_status.start : script_status.end]
            assert not list(tmp_path.glob("*/inputs/*"))

    async def test_nothing_else_stays(self, tmp_path, image, client) -> None:
        """Of several stages only the last; when its image is forgotten, nothing at all."""
        before = nameless(client)
        base = of_lines(
            f"FROM {image} AS one",
            "RUN echo $(cat /proc/sys/kernel/random/uuid) > /a",
            "RUN echo b > /b",
            f"FROM {image}",
            "COPY --from=one /a /a",
            "RUN echo c > /c",
            no_cache=True,
        )
        async with a_docker_node(tmp_path) as node:
            build, log = await built(node, base, "cat /a /c")
            assert build.result is Result.SUCCEEDED, log
            node.parts.engine.forget_image(built_image(build.id))
            assert nameless(client) <= before
            assert client.containers(all=True, filters={"ancestor": image}) == []

    @pytest.mark.parametrize(
        ("lines", "words", "code"),
        [
            (("RUN echo before", "RUN exit 7"), "returned a non-zero code: 7", 7),
            (("COPY nowhere /",), "nowhere", 1),
            (("FRM x",), "unknown instruction", 1),
            (("USER nobody-here", "RUN true"), "nobody-here", 1),
        ],
    )
    async def test_one_that_fails(self, tmp_path, image, client, lines, words, code) -> None:
        """The user's failure, in the builder's words; no command runs, nothing stays."""
        before = nameless(client)
        async with a_docker_node(tmp_path) as node:
            base = of_lines(f"FROM {image}", *lines, no_cache=True)
            build, log = await built(node, base, "echo ran")
            assert build.result is Result.FAILED
            assert words in build.reason
            assert words in log
            assert [command.exit_code for command in build.commands] == [125, code]
            assert "\nran\n" not in log
            assert nameless(client) <= before
            with pytest.raises(ImageNotFound):
                ours(client, build)

    async def test_a_registry_that_does_not_answer(self, tmp_path) -> None:
        """It is no failure of the user's: another node may reach it."""
        async with a_docker_node(tmp_path) as node:
            build, _ = await built(node, of_lines("FROM 127.0.0.1:1/none"), "true")
            assert build.result is Result.LOST
            assert "127.0.0.1:1/none" in build.reason

    @pytest.mark.parametrize("way", ["cancel", "time limit"])
    async def test_one_that_is_ended(self, tmp_path, image, client, way) -> None:
        """Soon, in the middle of a step, whose container does not stay either."""
        before = nameless(client)
        limit = {"time_limit": 3.0} if way == "time limit" else {}
        async with a_docker_node(tmp_path) as node:
            base = of_lines(f"FROM {image}", "RUN true", "RUN sleep 1000", no_cache=True)
            build = await submitted(node, base, "true", **limit)
            await self.in_log(node, build, "RUN sleep 1000")
            if way == "cancel":
                async with asyncio.timeout(5):
                    await node.service.cancel(LOCAL, build.id)
            build = await ended(node.service, build.id, 20)
            wanted = Result.CANCELLED if way == "cancel" else Result.TIMED_OUT
            assert build.result is wanted
            await asyncio.to_thread(
                tools.until,
                lambda: client.containers(all=True, filters={"ancestor": image}) == [],
            )
            assert nameless(client) <= before

    async def test_limits_hold_in_its_steps(self, tmp_path, image) -> None:
        """Memory, processors and network, as the engine's builder can."""
        base = of_lines(
            f"FROM {image}",
            "RUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max",
            "RUN cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us || cat /sys/fs/cgroup/cpu.max",
            "RUN ls /sys/class/net",
            no_cache=True,
        )
        async with a_docker_node(tmp_path) as node:
            memory = 64 << 20
            build, log = await built(node, base, memory=memory, cpus=0.5, network=False)
            assert build.result is Result.SUCCEEDED, log
            assert f"\n{memory}\n" in log
            assert "\n50000" in log
            assert "\nlo\n" in log
            assert "eth0" not in log

    async def test_the_log_limit(self, tmp_path, image) -> None:
        """Output beyond it is not kept, which a line says."""
        base = of_lines(f"FROM {image}", "RUN yes | head -c 100000", no_cache=True)
        async with a_docker_node(tmp_path, log_limit=4096) as node:
            build, log = await built(node, base)
            assert build.result is Result.SUCCEEDED
            assert len(log) < 6000
            assert "reached its limit of 4096 bytes" in log

    async def test_a_node_that_starts_again(self, tmp_path, image) -> None:
        """It begins the image anew."""
        base = of_lines(f"FROM {image}", "RUN sleep 1000", no_cache=True)
        async with a_docker_node(tmp_path, home="home") as node:
            build = await submitted(node, base, "true")
            await self.in_log(node, build, "RUN sleep 1000")
        async with a_docker_node(tmp_path, home="home") as node:
            await self.in_log(node, build, "RUN sleep 1000", times=2)
            build = await node.service.get(LOCAL, build.id)
            assert build.stage is Stage.PREPARING
            build = await node.service.cancel(LOCAL, build.id)
            assert build.result is Result.CANCELLED

    @staticmethod
    async def in_log(node: Program, build: Build, words: str, times: int = 1) -> None:
        """Wait until its log has these words."""
        seen = b""
        async with asyncio.timeout(20):
            opened = await node.service.open_log(LOCAL, build.id, Position(), follow=True)
            async for piece in opened.stream:
                seen += piece
                if seen.count(words.encode()) >= times:
                    return
        raise AssertionError(f"it ended without: {seen!r}")


class TestImages:
    """Images as results, and as bases of later builds."""

    async def made(self, node: Program, base: Base, **how: Any) -> tuple[Build, bytes]:
        """(a build whose result is its base, that result)."""
        build, log = await built(node, base, output=ImageOutput(**how))
        assert build.result is Result.SUCCEEDED, (build.reason, log)
        assert build.commands[0].name == "build the image"
        (artifact,) = build.artifacts
        opened = await node.service.open_artifact(LOCAL, build.id, artifact.name)
        data = b"".join([piece async for piece in opened.stream])
        await opened.stream.close()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (artifact.size, artifact.sha256)
        return build, data

    async def test_an_image_and_builds_on_it(self, tmp_path, image, client) -> None:
        """What the build made is an image for later ones: on the node that made it at once, on
        another one from its bytes.
        """
        base = of_lines(f"FROM {image}", "RUN echo made > /file", "ENV COLOUR=green")
        script = "cat /file; echo $COLOUR"
        async with a_docker_node(tmp_path) as one:
            build, data = await self.made(one, base, name="my.tar")
            assert build.artifacts[0].name == "my.tar"
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                assert "manifest.json" in archive.getnames()
            later = BuiltBase(build.id, "my.tar", build.artifacts[0].sha256)
            again, log = await built(one, later, script)
            assert (again.result, log) == (Result.SUCCEEDED, "made\ngreen\n")
            for name in one.parts.engine.images():
                if build.id in name:
                    one.parts.engine.forget_image(name)
            self.put(tmp_path, data)
            again, log = await built(one, later, script)
            assert again.result is Result.SUCCEEDED, log
            assert said_before(log, "made", "green")
            assert f"[imagepool: loading the image of build {build.id}]" in log
            one.parts.engine.forget_image(built_image(build.id, later.sha256))

    async def test_a_file_system(self, tmp_path, image) -> None:
        """As a tar file; a later build can start from that too."""
        base = of_lines(f"FROM {image}", "RUN echo made > /file", "ENV COLOUR=green")
        async with a_docker_node(tmp_path) as node:
            build, data = await self.made(node, base, format="rootfs")
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                assert archive.extractfile("file").read() == b"made\n"
            assert node.parts.engine.containers({"imagepool.build": build.id}) == ()
            self.put(tmp_path, data)
            digest = build.artifacts[0].sha256
            again, log = await built(node, BuiltBase(build.id, sha256=digest), "cat /file")
            assert again.result is Result.SUCCEEDED, log
            assert log.endswith("made\n")
            node.parts.engine.forget_image(built_image(build.id, digest))

    @pytest.mark.parametrize("trick", ["tag", "link", "index", "twice"])
    async def test_a_hostile_image(self, tmp_path, image, client, trick) -> None:
        """An archive that somebody made up cannot take the name of another image."""
        victim = tools.make_image(tools.shell_tree(), "ENV PATH=/bin", "LABEL is=victim")
        before = client.inspect_image(victim)["Id"]
        data = hostile(client, image, victim, trick)
        digest = hashlib.sha256(data).hexdigest()
        made = "0" * 31 + str(len(trick))
        async with a_docker_node(tmp_path) as node:
            self.put(tmp_path, data)
            build, log = await built(
                node, BuiltBase(made, sha256=digest), "echo ran", forward=from_above()
            )
            assert client.inspect_image(victim)["Id"] == before
            name = built_image(made, digest)
            assert build.result in (Result.SUCCEEDED, Result.FAILED), build.reason
            if build.result is Result.SUCCEEDED:
                assert "ran\n" in log
                node.parts.engine.forget_image(name)
            assert name not in node.parts.engine.images()

    @pytest.mark.parametrize("data", [b"", b"nonsense" * 1000])
    async def test_what_is_no_image(self, tmp_path, data) -> None:
        """The user's failure."""
        digest = hashlib.sha256(data).hexdigest()
        async with a_docker_node(tmp_path) as node:
            self.put(tmp_path, data)
            build, _ = await built(
                node, BuiltBase("0" * 32, sha256=digest), "true", forward=from_above()
            )
            node.parts.engine.forget_image(built_image("0" * 32, digest))
            assert build.result is Result.FAILED, build.reason

    async def test_one_that_is_killed_on_the_way(self, tmp_path, image) -> None:
        """A node that starts again begins the result anew, whatever the stage was."""
        async with a_docker_node(tmp_path) as node:
            build, _ = await self.made(node, of_lines(f"FROM {image}", "RUN true"))
        for stage in (Stage.PREPARING, Stage.RUNNING, Stage.COLLECTING):
            left = replace(build, stage=stage, result=None)
            way = way_on(left, direct=True, has_container=False, has_folder=False)
            assert way is Way.BEGIN

    @staticmethod
    def put(folder: Path, data: bytes) -> None:
        """Among the node's blobs."""
        for blobs in folder.glob("*/blobs"):
            (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)


def hostile(client: docker.APIClient, image: str, victim: str, trick: str) -> bytes:
    """A saved image that claims the victim's name."""
    saved, held = io.BytesIO(b"".join(client.get_image(image))), io.BytesIO()
    with tarfile.open(fileobj=saved) as source, tarfile.open(fileobj=held, mode="w") as made:
        manifest = json.loads(source.extractfile("manifest.json").read())
        manifest[0]["RepoTags"] = [victim]
        text = json.dumps(manifest).encode()

        def add(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))

        for entry in source:
            if entry.name not in ("manifest.json", "repositories"):
                made.addfile(entry, source.extractfile(entry) if entry.isreg() else None)
        repository, tag = victim.split(":")
        add("repositories", json.dumps({repository: {tag: "0" * 64}}).encode())
        add("manifest.json", text)
        if trick == "link":  # the second writes, by another way, over the first
            link = tarfile.TarInfo("here")
            link.type, link.linkname = tarfile.SYMTYPE, "."
            made.addfile(link)
            add("here/manifest.json", text)
        elif trick == "index":
            add("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
            add("index.json", b'{"schemaVersion": 2, "manifests": []}')
        elif trick == "twice":
            add("./manifest.json", text)
            add("x/../manifest.json", text)
    return held.getvalue()


class TestDownloads:
    """Base images that are fetched."""

    @pytest.mark.parametrize("kind", ["plain", "gzip", "xz", "upload"])
    async def test_a_file_system(self, tmp_path, client, kind) -> None:
        """A tar file, as it is or compressed, becomes the image that commands run in."""
        tree = tools.archive({**tools.shell_tree(), "file": tools.File(b"from afar\n")})
        packed = {"gzip": gzip.compress, "xz": lzma.compress}.get(kind, bytes)(tree)
        digest = hashlib.sha256(packed).hexdigest()
        with serving({"/rootfs": packed}) as url:
            content = FetchedContent(f"{url}/rootfs", digest)
            async with a_docker_node(tmp_path) as node:
                TestImages.put(tmp_path, packed)
                source = UploadedContent(digest) if kind == "upload" else content
                script = "PATH=/bin; cat /file; test ! -e /inbox"
                build, log = await built(node, DownloadBase(source), script)
                assert build.result is Result.SUCCEEDED, log
                assert log.endswith("from afar\n")
                assert (f"[imagepool: fetched {len(packed)} bytes]" in log) == (kind != "upload")
                assert ours(client, build)["Config"]["Labels"]["imagepool.build"] == build.id
                assert not list(tmp_path.glob("*/inputs/*"))

    @pytest.mark.parametrize("data", [b"nonsense" * 1000, b"\x28\xb5\x2f\xfd" + bytes(1000)])
    async def test_what_is_no_file_system(self, tmp_path, data) -> None:
        """The user's failure, in the engine's words; where an engine may be too old, that too."""
        with serving({"/rootfs": data}) as url:
            async with a_docker_node(tmp_path) as node:
                base = DownloadBase(FetchedContent(f"{url}/rootfs"))
                build, _ = await built(node, base, "true")
                assert build.result is Result.FAILED
                assert "cannot be imported" in build.reason
                assert ("zstd" in build.reason) == (data[:1] == b"(")

    @pytest.mark.parametrize("named", [True, False])
    async def test_a_disk(self, tmp_path, image, named) -> None:
        """It lies under /inbox/, read-only, as inputs do; the container is of the tools' image, or
        of the node's base image.
        """
        disk = b"QFI\xfb" + bytes(5000)
        with serving({"/disk": disk}) as url:
            own = {} if named else {"base_image": image}
            async with a_docker_node(tmp_path, **own) as node:
                tools_image = image if named else None
                content = FetchedContent(f"{url}/disk")
                base = DownloadBase(content, "qcow2", "my.qcow2", tools_image)
                script = (
                    "PATH=/bin; stat -c '%a %s' /inbox/my.qcow2; rm -f /inbox/my.qcow2 || ls /inbox"
                )
                build, log = await built(node, base, script)
                assert build.result is Result.SUCCEEDED, log
                assert "644 5004\n" in log
                assert log.endswith("my.qcow2\n")


@pytest.mark.parametrize("packing", ["", "gz", "xz"])
async def test_an_archive_with_a_dockerfile(tmp_path, image, client, packing) -> None:
    """The archive is the whole context, and the Dockerfile may lie anywhere in it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=f"w:{packing}") as archive:
        for name, text in (
            ("repo/docker/Dockerfile", f"FROM {image}\nCOPY repo/words /words\n"),
            ("repo/words", "from an archive\n"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    with serving({"/repo.tar": packed.getvalue()}) as url:
        async with a_docker_node(tmp_path) as node:
            base = DockerfileBase(
                archive=FetchedContent(f"{url}/repo.tar"), path="repo/docker/Dockerfile"
            )
            build, log = await built(node, base, "PATH=/bin cat /words")
            assert build.result is Result.SUCCEEDED, log
            assert log.endswith("from an archive\n")
            build, log = await built(
                node, DockerfileBase(archive=FetchedContent(f"{url}/repo.tar"))
            )
            assert build.result is Result.FAILED
            assert "Dockerfile" in build.reason


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[str]:
    """A server of these files: its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(files[self.path])))
            self.end_headers()
            self.wfile.write(files[self.path])

        def log_message(self, *words: Any) -> None:
            """Nothing: it is a test's."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
