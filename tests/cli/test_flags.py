"""What the flags of `imagepool build` become."""

import pytest

from imagepool.cli import flags as flags_module
from imagepool.cli.flags import Flags, applied, command, local, output
from protocol.errors import Invalid
from protocol.model.recipe import (
    Command,
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
)
from protocol.model.request import Guidance, Needs, Order


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (("iso",), IsoOutput()),
        (("none",), NoOutput()),
        (("outbox",), OutboxOutput()),
        (("outbox=a.zip",), OutboxOutput("a.zip")),
        (("stream=a.tar",), StreamOutput("a.tar")),
        (("image=rootfs",), ImageOutput("rootfs")),
        (("paths=/a/*", "paths=/b=c"), PathsOutput(("/a/*", "/b=c"))),
    ],
)
def test_outputs(given, wanted) -> None:
    """KIND, KIND=VALUE, and paths several times."""
    assert output(given) == wanted


@pytest.mark.parametrize(
    "given", [("moon",), ("iso", "none"), ("paths",), ("none=x",), ("paths=/a", "iso"), ("",)]
)
def test_other_outputs_are_refused(given) -> None:
    """With what would have been right."""
    with pytest.raises(Invalid, match="--output is") as refused:
        output(given)
    assert refused.value.field == "output"


def test_commands(tmp_path) -> None:
    """A text is a shell script that ends at the first failure, unless it says what it is for."""
    script = tmp_path / "make.sh"
    script.write_text("#!/bin/bash\nmake\n")
    assert command("echo  hello\nls").name == "echo hello ls"
    assert command("echo hello").text == "#!/bin/sh\nset -e\necho hello\n"
    assert command("#!/bin/bash\nls").text == "#!/bin/bash\nls"
    assert command(f"@{script}") == Command("make.sh", text="#!/bin/bash\nmake\n")
    assert command("@https://x.example/a/b.sh") == Command("b.sh", url="https://x.example/a/b.sh")
    with pytest.raises(Invalid, match="No such file"):
        command(f"@{tmp_path}/none")


@pytest.mark.parametrize(
    ("text", "need"),
    [
        ("architecture=aarch64", Needs(architecture="aarch64")),
        ("labels=kvm,ssd", Needs(labels=("kvm", "ssd"))),
        ("cpus=1.5", Needs(cpus=1.5)),
        ("memory=512M", Needs(memory=512 << 20)),
        ("memory=2GiB", Needs(memory=2 << 30)),
        ("disk=1T", Needs(disk=1 << 40)),
        ("disk=1000", Needs(disk=1000)),
        ("processes=100", Needs(processes=100)),
        ("network=no", Needs(network=False)),
        ("time_limit=90", Needs(time_limit=90)),
    ],
)
def test_needs(text, need) -> None:
    """In units that people write."""
    assert applied(Order(), Flags(needs=(text,))).guidance.needs == need


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (Flags(needs=("memory=lots",)), "needs.memory"),
        (Flags(needs=("moon=1",)), "needs.moon"),
        (Flags(needs=("network=perhaps",)), "needs.network"),
        (Flags(needs=("memory",)), "needs"),
        (Flags(labels=("=x",)), "label"),
        (Flags(labels=("a b=x",)), "labels"),
        (Flags(priority=5000), "priority"),
        (Flags(secrets=("A=hush",)), "secret"),
        (Flags(secrets=("NONE",)), "secret"),
        (Flags(secrets=("A=@/none",)), "secret A"),
        (Flags(outputs=("paths=relative",)), "recipe.output.paths[0]"),
    ],
)
def test_what_is_wrong_is_named(flags, field) -> None:
    """By flag, or by the field of the request."""
    with pytest.raises(Invalid) as refused:
        applied(Order(), flags, {})
    assert refused.value.field == field
    assert refused.value.expected
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("memory=lots", "--needs memory is 'lots'", "bytes, from 16M on, such as 512M or 2G"),
        ("memory=1", "--needs memory is '1'", "bytes, from 16M on, such as 512M or 2G"),
        ("labels=a b", "--needs labels is 'a b'", "labels with commas between them"),
        ("network=perhaps", "--needs network is 'perhaps'", "yes or no"),
        ("moon=1", "--needs moon is not known here", "one of: architecture, labels, cpus, memory"),
    ],
)
def test_a_need_is_refused_in_the_words_of_who_types_it(text, words, expected) -> None:
    """Not in those of the type that it becomes."""
    with pytest.raises(Invalid) as refused:
        applied(Order(), Flags(needs=(text,)), {})
    assert refused.value.detail == words
    assert refused.value.expected.startswith(expected)


def test_every_need_has_words() -> None:
    """Also one that comes with a new field."""
    assert flags_module._NEEDS.keys() == set(Needs.__struct_fields__)


def test_flags_add_to_a_file_and_replace_what_is_there_once() -> None:
    """Commands, needs, labels and secrets are added; image, output, priority and note replaced."""
    order = Order(
        Recipe((Command("a", text="x"),), base=ImageBase("old"), output=IsoOutput()),
        Guidance(needs=Needs(cpus=2), labels={"a": "1"}, priority=1, note="old"),
        {"one": "1"},
    )
    assert applied(order, Flags()) == order
    flags = Flags(
        image="new",
        commands=("ls",),
        outputs=("none",),
        labels=("b=2",),
        needs=("memory=1G",),
        secrets=("TWO",),
        priority=0,
        note="",
        keep_going=True,
    )
    made = applied(order, flags, {"TWO": "2"})
    assert [command.name for command in made.recipe.commands] == ["a", "ls"]
    assert (made.recipe.base, made.recipe.output) == (ImageBase("new"), NoOutput())
    assert made.recipe.keep_going
    assert made.guidance.needs == Needs(cpus=2, memory=1 << 30)
    assert made.guidance.labels == {"a": "1", "b": "2"}
    assert (made.guidance.priority, made.guidance.note) == (0, "")
    assert made.secrets == {"one": "1", "TWO": "2"}


def test_inputs(tmp_path) -> None:
    """A file under its own name or another, all of a folder, a URL that the node fetches."""
    (tmp_path / "d" / "e").mkdir(parents=True)
    for name in ("a", "d/b", "d/e/c"):
        (tmp_path / name).write_text(name)
    url = "https://x.example/a=b/f.txt"
    given = (f"{tmp_path}/a", f"x/y={tmp_path}/a", f"in={tmp_path}/d", url, f"g={url}")
    assert local(given) == {
        "a": tmp_path / "a",
        "x/y": tmp_path / "a",
        "in/b": tmp_path / "d" / "b",
        "in/e/c": tmp_path / "d" / "e" / "c",
    }
    assert applied(Order(), Flags(inputs=given)).recipe.inputs == (
        InputFile("f.txt", FetchedContent(url)),
        InputFile("g", FetchedContent(url)),
    )
