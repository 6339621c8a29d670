"""Every request of the five reference documents that asks for a build is a value of our model: the
documents' own examples, made into one as their API family will do it, and what comes of it.

docs/architecture.md has the table of all requests; this is its proof.
"""

import hashlib
import json
from typing import Any
from urllib.parse import parse_qs, quote_plus

import pytest

from protocol import wire
from protocol.api.image_creator.specification import Specification, to_request
from protocol.api.traffic_ops.recipe import to_order
from protocol.api.traffic_ops.settings import OsVersion, TrafficOpsSettings
from protocol.api.traffic_ops.wanted import Wanted, read
from protocol.errors import Invalid
from protocol.model.checks import check_request, check_secrets
from protocol.model.recipe import (
    ArtifactContent,
    BuiltBase,
    Command,
    DockerfileBase,
    DownloadBase,
    FetchedContent,
    ImageBase,
    ImageOutput,
    InputFile,
    IsoOutput,
    NoOutput,
    OutboxOutput,
    PathsOutput,
    Recipe,
    StreamOutput,
    TextContent,
    UploadedContent,
)
from protocol.model.request import (
    BuildRequest,
    Guidance,
    Needs,
    Notice,
    Order,
    contents,
    resolved,
    uploads,
)
from protocol.wire import JSON, MSGPACK
from tests.traffic_ops import EXAMPLE

SHA = hashlib.sha256(b"an upload").hexdigest()
EARLIER = "018f0000000000000000000000000001"
"""The id of a build that an earlier request of the family asked for."""


def holds(order: Order) -> Order:
    """The order, when it validates where AMQP is set up, and is the same over the wire."""
    check_request(order.request, ("*",), exchanges=True)
    check_secrets(order.request, order.secrets)
    for media_type in (JSON, MSGPACK):
        assert wire.decode(wire.encode(order, media_type), Order, media_type) == order
        there = wire.decode(wire.encode(order.request, media_type), BuildRequest, media_type)
        assert there == order.request
    text = wire.encode(order.request).decode()
    assert not [value for value in order.secrets.values() if value in text]
    return order


def plain(request: BuildRequest) -> Order:
    """An order without secrets."""
    return Order(request.recipe, request.guidance)


# Image creator

CREATE = (
    r'{"redirect":"http://localhost/","commands":[{"name":"build iso","command":'
    r'"#!/bin/bash\n/toiso/command.sh -q\n","arguments":[]}]}'
)


def test_image_creator_create() -> None:
    """`POST /create`: the commands in the node's base image, the ISO that it names; a command that
    fails does not stop those that follow.
    """
    order = holds(plain(to_request(wire.decode(CREATE.encode(), Specification), ("*",))))
    assert order.recipe == Recipe(
        commands=(Command("build iso", text="#!/bin/bash\n/toiso/command.sh -q\n"),),
        base=ImageBase(),
        output=IsoOutput(),
        keep_going=True,
    )


def test_image_creator_image_url_and_arguments() -> None:
    """The optional parts: an image, a command by URL, arguments."""
    given = json.loads(CREATE) | {"image": "codersos/linux-image-creator"}
    given["commands"].append({"name": "x", "url": "http://some.docu/ment", "arguments": ["a b"]})
    order = holds(plain(to_request(wire.convert(given, Specification), ("*",))))
    assert order.recipe.base == ImageBase("codersos/linux-image-creator")
    fetched = order.recipe.commands[1]
    assert (fetched.url, fetched.arguments) == ("http://some.docu/ment", ("a b",))


# Image builder

BUILD_IMAGE = (
    '{"base_image": {"image_type": "cloud", "url_list": ["http://cloud-images.ubuntu.com/trusty/'
    'current/trusty-server-cloudimg-amd64-disk1.img"], "series": "trusty"}, "ppa_list": ["ppa:'
    'project/ppaname"], "package_list": ["libfoo", "baz-utils"], "progress_trigger": "testbuild-'
    '1-imagebuilder", "ticket_id": "1", "cancel_url": null}'
)
STORE = {"GLANCE": '{"auth_url": "https://glance.example/", "password": "hidden word"}'}
"""What the operator sets for the data store."""


def image_builder(given: dict[str, Any]) -> Order:
    """PPAs and packages are arguments, which no shell reads; the data store's credentials are the
    operator's, and secret.
    """
    base = given["base_image"]
    first, *more = base["url_list"]
    script = '#!/bin/sh\nexec /usr/lib/imagepool/rebuild "$@"\n'
    packages = (*given["ppa_list"], *given["package_list"])
    push = '#!/bin/sh\nexec /usr/lib/imagepool/push /tmp/image.img "$IMAGEPOOL_SECRETS/GLANCE"\n'
    return Order(
        Recipe(
            commands=(
                Command("add packages", text=script, arguments=(base["series"], *packages)),
                Command("push to the data store", text=push, arguments=(given["ticket_id"],)),
            ),
            base=DownloadBase(FetchedContent(first), format="qcow2", tools="tools/guestfish:1"),
            inputs=tuple(
                InputFile(f"more/{number}", FetchedContent(url))
                for number, url in enumerate(more, 1)
            ),
            output=PathsOutput(("/tmp/image.img",)),
        ),
        Guidance(
            labels={"ticket_id": given["ticket_id"]},
            notices=(Notice(exchange=given["progress_trigger"]),),
            cancel_url=given["cancel_url"],
        ),
        secrets=STORE,
    )


def test_image_builder_build_image() -> None:
    """`POST /api/v1/build_image/`: a base image that is downloaded, an exchange to tell."""
    order = holds(image_builder(json.loads(BUILD_IMAGE)))
    assert order.guidance.notices == (Notice(exchange="testbuild-1-imagebuilder"),)
    assert order.guidance.cancel_url is None
    assert order.recipe.commands[0].arguments == (
        *("trusty", "ppa:project/ppaname", "libfoo"),
        "baz-utils",
    )
    assert not uploads(order.request)
    with pytest.raises(Invalid, match="AMQP is not set up here"):
        check_request(order.request, ("*",))


def test_image_builder_cancel_url_and_several_urls() -> None:
    """A requester that is asked, and an image of several files."""
    given = json.loads(BUILD_IMAGE) | {"cancel_url": "http://jenkins.example/job/1/api/json"}
    given["base_image"]["url_list"].append("http://cloud-images.ubuntu.com/vmlinuz")
    order = holds(image_builder(given))
    assert order.guidance.cancel_url == "http://jenkins.example/job/1/api/json"
    assert [field for field, _ in contents(order.request)] == [
        "recipe.base.content",
        "recipe.inputs[0].content",
    ]


# Bare metal

DOCKERFILE = "FROM debian:12\nRUN apt-get update && apt-get install -y linux-image-amd64\n"


def bare_metal_root(dockerfile: str) -> Order:
    """First of all the file system that the Dockerfile makes."""
    return Order(
        Recipe(
            base=DockerfileBase(TextContent(dockerfile)),
            output=ImageOutput(format="rootfs", name="root.tar"),
        )
    )


def bare_metal_disk(root: str, machine: str, version: int) -> Order:
    """Then, in an image with the tools for it, a disk that boots; `root` is the build before."""
    script = '#!/bin/sh\nexec /usr/lib/imagepool/disk /inbox/root.tar /tmp/disk.img "$@"\n'
    return Order(
        Recipe(
            commands=(Command("make a disk", text=script, arguments=(machine,)),),
            base=ImageBase("tools/disk:1"),
            inputs=(InputFile("root.tar", ArtifactContent(root, "root.tar")),),
            output=PathsOutput(("/tmp/disk.img",)),
        ),
        Guidance(
            needs=Needs(architecture="x86_64"),
            labels={"image": "57bf0cd3-c2bf-4257-acdd-b7f1c8633fcf", "version": str(version)},
        ),
    )


def test_bare_metal_run_docker() -> None:
    """`POST /image/{uuid}/docker`: two builds, the second of the first one's artifact, whose digest
    is filled in when it is accepted.
    """
    holds(bare_metal_root(DOCKERFILE))
    order = holds(bare_metal_disk(EARLIER, "debian", 1636116090))
    assert not uploads(order.request)
    whole = resolved(order.request, lambda field, reference: SHA)
    assert uploads(whole) == {SHA}
    holds(Order(whole.recipe, whole.guidance))


def test_bare_metal_uploads_are_inputs() -> None:
    """`POST /image/{uuid}` makes no build; what it uploaded can be the base of one."""
    order = holds(
        Order(
            Recipe(
                commands=(Command("look", text="#!/bin/sh\nls -l /inbox\n"),),
                base=DownloadBase(UploadedContent(SHA), format="qcow2", name="disk.img"),
                output=NoOutput(),
            )
        )
    )
    assert uploads(order.request) == {SHA}


# Kabuto

SAMPLE_DOCKERFILE = 'FROM busybox\nCMD ["echo", "hello world"]\n'


def kabuto_image(form: dict[str, list[str]], attachments: dict[str, str]) -> Order:
    """`attachments`: names of the files that came with it -> digests of their uploads."""
    return Order(
        Recipe(
            base=DockerfileBase(
                TextContent(form["dockerfile"][0]),
                context=tuple(
                    InputFile(name, UploadedContent(digest)) for name, digest in attachments.items()
                ),
                no_cache=form.get("nocache", ["false"])[0] == "true",
            ),
            output=ImageOutput(),
        ),
        Guidance(labels={"name": form["name"][0]}),
    )


def kabuto_job(command: str, image_build: str, attachments: dict[str, str]) -> Order:
    """`image_build`: the build that made the image of `image_id`."""
    return Order(
        Recipe(
            commands=(Command("command", text=f"#!/bin/sh\n{command}\n"),),
            base=BuiltBase(image_build),
            inputs=tuple(
                InputFile(name, UploadedContent(digest)) for name, digest in attachments.items()
            ),
            output=OutboxOutput(),
        )
    )


@pytest.mark.parametrize("nocache", ["true", "false"])
def test_kabuto_image(nocache) -> None:
    """`POST /image`: a Dockerfile with its attachments becomes an image for later builds."""
    body = f"name=test&dockerfile={quote_plus(SAMPLE_DOCKERFILE)}&nocache={nocache}"
    order = holds(kabuto_image(parse_qs(body), {"file1": SHA}))
    assert order.recipe.base == DockerfileBase(
        TextContent(SAMPLE_DOCKERFILE),
        context=(InputFile("file1", UploadedContent(SHA)),),
        no_cache=nocache == "true",
    )
    assert uploads(order.request) == {SHA}
    assert order.recipe.commands == ()


def test_kabuto_image_of_the_python_example() -> None:
    """A literal string, in which blanks and new lines count."""
    order = holds(kabuto_image({"dockerfile": [SAMPLE_DOCKERFILE], "name": ["test"]}, {}))
    assert order.recipe.base.dockerfile == TextContent(SAMPLE_DOCKERFILE)


def test_kabuto_job() -> None:
    """`POST /pipeline/ID/job`, then `submit`: a command in that image, with files in the inbox,
    and the outbox as a zip.
    """
    order = holds(kabuto_job("echo hello world", EARLIER, {"file1": SHA, "file2": SHA[::-1]}))
    assert [file.name for file in order.recipe.inputs] == ["file1", "file2"]
    assert uploads(order.request) == {SHA, SHA[::-1]}
    assert uploads(resolved(order.request, lambda field, reference: "0" * 64)) > {SHA}


# Traffic Ops


def traffic_ops(**changes: Any) -> Order:
    """As the family does it, for an OS version in an image."""
    versions = {"centos72": OsVersion("CentOS 7.2", ImageBase("tools/mkisofs:1"))}
    wanted = read({**EXAMPLE, **changes}, versions)
    assert isinstance(wanted, Wanted), wanted
    return to_order(wanted, TrafficOpsSettings(versions), ["8.8.8.8"])


def test_traffic_ops_isos() -> None:
    """`POST /api/1.3/isos` without a stream: a file under the documented name."""
    order = holds(traffic_ops())
    assert order.recipe.output == PathsOutput(("/made/test.quest-centos72.iso",))
    assert order.request.secrets == ("password-hash", "password.cfg")
    assert "twelve" not in str(order)


def test_traffic_ops_isos_as_a_stream() -> None:
    """With one: under the same name, kept nowhere."""
    order = holds(traffic_ops(stream="yes"))
    assert order.recipe.output == StreamOutput("test.quest-centos72.iso", pipe=True)
