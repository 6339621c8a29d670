"""What the types of a request cannot say: names, URLs and texts that must make sense before
anything is started.
"""

import fnmatch
import re

from protocol.errors import Denied, Invalid
from protocol.model.networks import Reach
from protocol.model.notice_rules import check_exchanges
from protocol.model.recipe import (
    IMAGE_NAME,
    Command,
    DockerfileBase,
    DownloadBase,
    FetchedContent,
    ImageBase,
    ImageOutput,
    InputFile,
    Recipe,
    StreamOutput,
)
from protocol.model.request import BuildRequest, Secrets, contents, signing_secrets
from protocol.model.urls import read_url

_PART = re.compile(r"[^\x00-\x1f\x7f\\\u0080-\u009f\u2028\u2029]+")  # of an input's name
_PART_LIMIT = 200  # bytes
_DEPTH = 16  # parts of an input's name


def check_request(
    request: BuildRequest, images: tuple[str, ...], *, exchanges: bool = False
) -> None:
    """Raises Invalid, or Denied for an image that none of the operator's patterns allows; names
    the field. `exchanges`: notices may go to exchanges of AMQP, or it is for another program to
    send them.
    """
    recipe = request.recipe
    _check_base(recipe, images)
    for index, command in enumerate(recipe.commands):
        check_command(command, f"recipe.commands[{index}]")
    _check_files(recipe.inputs, "recipe.inputs")
    for field, content in contents(request):
        if isinstance(content, FetchedContent):
            check_url(content.url, f"{field}.url")
    _check_output(recipe)
    _check_guidance(request)
    if not exchanges:
        check_exchanges(request)


def check_addresses(request: BuildRequest, notified: Reach, fetched: Reach | None) -> None:
    """Raises Denied where one of the request's URLs has an address that is not called, naming the
    field. `fetched`: None where it is for others to fetch, who have rules of their own. A command
    that cannot be fetched is no reason to refuse: the next one runs.
    """
    guidance = request.guidance
    told = [(f"guidance.notices[{i}].url", notice.url) for i, notice in enumerate(guidance.notices)]
    for field, url in (*told, ("guidance.cancel_url", guidance.cancel_url)):
        if url is not None:
            notified.check(read_url(url, field), field)
    if fetched is None:
        return
    for field, content in contents(request):
        if isinstance(content, FetchedContent):
            fetched.check(read_url(content.url, f"{field}.url"), f"{field}.url")


def _check_base(recipe: Recipe, images: tuple[str, ...]) -> None:
    base = recipe.base
    if isinstance(base, DownloadBase) and base.format == "qcow2":
        _check_disk(base.name, recipe.inputs)
    match base:
        case ImageBase(name=str(name)):
            check_image(name, images, "recipe.base.name")
        case DownloadBase(tools=str(tools)):
            check_image(tools, images, "recipe.base.tools")
        case DockerfileBase():
            _check_dockerfile(base)


def _check_disk(name: str, inputs: tuple[InputFile, ...]) -> None:
    if any(file.name.partition("/")[0] == name for file in inputs):
        raise Invalid(
            f"{name!r} is the name of the disk and of an input",
            field="recipe.base.name",
            expected="a name that no input has under /inbox/",
        )


def _check_dockerfile(base: DockerfileBase) -> None:
    if (base.dockerfile is None) == (base.archive is None):
        raise Invalid(
            "the base has neither a Dockerfile nor an archive, or both",
            field="recipe.base",
            expected="dockerfile, or archive (a tar file that has it)",
        )
    if base.archive is not None and base.context:
        raise Invalid(
            "the archive is the whole context",
            field="recipe.base.context",
            expected="no files beside an archive",
        )
    check_file_name(base.path, "recipe.base.path")
    _check_files(base.context, "recipe.base.context")


def _check_output(recipe: Recipe) -> None:
    if isinstance(recipe.output, StreamOutput) and not recipe.commands:
        raise Invalid(
            "nothing would write the stream",
            field="recipe.commands",
            expected="at least one command, whose standard output is the result",
        )
    if isinstance(recipe.output, ImageOutput) and recipe.commands:
        raise Invalid(
            "an image is made by its base alone",
            field="recipe.commands",
            expected="no commands, where the output is an image",
        )


def _check_guidance(request: BuildRequest) -> None:
    guidance = request.guidance
    if guidance.cancel_url is not None:
        check_url(guidance.cancel_url, "guidance.cancel_url")
    for index, notice in enumerate(guidance.notices):
        field = f"guidance.notices[{index}]"
        if notice.url is None and notice.exchange is None:
            raise Invalid(f"{field} tells nobody", field=field, expected="a url or an exchange")
        if notice.url is not None:
            check_url(notice.url, f"{field}.url")
        _check_secret(notice.secret, request, f"{field}.secret")
    if isinstance(request.recipe.base, ImageBase):
        _check_secret(request.recipe.base.credentials, request, "recipe.base.credentials")


def _check_secret(name: str | None, request: BuildRequest, field: str) -> None:
    if name is not None and name not in request.secrets:
        raise Invalid(
            f"there is no secret {name!r}", field=field, expected="the name of one in secrets"
        )


def _check_files(files: tuple[InputFile, ...], field: str) -> None:
    """Raises Invalid for a name that is no relative path below the folder, or that another file
    has, or has as its folder.
    """
    names: set[str] = set()
    folders: set[str] = set()
    for index, file in enumerate(files):
        where = f"{field}[{index}].name"
        parts = check_file_name(file.name, where)
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
        if file.name in names:
            raise Invalid(f"{where} is there twice", field=where, expected="a name of its own")
        names.add(file.name)
    for clash in sorted(names & folders)[:1]:
        raise Invalid(
            f"{clash[:80]!r} is a file and a folder", field=field, expected="one or the other"
        )


def check_file_name(name: str, field: str) -> list[str]:
    """The parts of an input's name. Raises Invalid unless it is a relative path that stays below
    its folder and can be a file's name everywhere.
    """
    parts = name.split("/")
    sound = all(
        part not in ("", ".", "..") and _PART.fullmatch(part) and len(part.encode()) <= _PART_LIMIT
        for part in parts
        if not _has_surrogates(part)
    )
    if not sound or _has_surrogates(name) or len(parts) > _DEPTH or len(name.encode()) > 1024:
        raise Invalid(
            f"{field} is {name[:80]!r}",
            field=field,
            expected=f"a relative path of at most {_DEPTH} parts without . and .., each of up to"
            f" {_PART_LIMIT} bytes without backslashes and control characters",
        )
    return parts


def check_secrets(request: BuildRequest, secrets: Secrets, *, forwarded: bool = False) -> None:
    """Raises Invalid unless there is a value for each secret that is named, and for no other, and
    those that are to be of a form are of it. `forwarded`: those that sign notices have stayed where
    the notices are sent.
    """
    elsewhere = signing_secrets(request) if forwarded else frozenset()
    for name in sorted((set(request.secrets) - elsewhere) ^ secrets.keys()):
        raise Invalid(
            f"the value of the secret {name!r} is missing"
            if name in request.secrets
            else f"the secret {name!r} is not named in the request",
            field=f"secrets.{name}",
            expected="a value for each secret that the request names",
        )
    base = request.recipe.base
    login = base.credentials if isinstance(base, ImageBase) else None
    if login is not None and ":" not in secrets.get(login, ":"):
        raise Invalid(
            f"the secret {login!r} is no user and password",
            field=f"secrets.{login}",
            expected="USER:PASSWORD, for the registry",
        )


def check_command(command: Command, field: str) -> None:
    """Raises Invalid: one of text and URL, and nothing that cannot be handed to a process."""
    if (command.text is None) == (command.url is None):
        raise Invalid(
            f"{field} has neither text nor url, or both",
            field=field,
            expected="text (a script) or url (where to fetch it)",
        )
    if command.url is not None:
        check_url(command.url, f"{field}.url")
    for index, argument in enumerate(command.arguments):
        _check_word(argument, f"{field}.arguments[{index}]")
    for name, value in command.environment.items():
        _check_word(value, f"{field}.environment.{name}")


def check_image(name: str, patterns: tuple[str, ...], field: str) -> None:
    """Raises Invalid where this is no image name, Denied where the operator does not allow it."""
    if not IMAGE_NAME.fullmatch(name):
        raise Invalid(
            f"{field} is {name[:80]!r}",
            field=field,
            expected="an image name, such as debian:12, in lower case",
        )
    if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
        allowed = ", ".join(patterns) or "none"
        raise Denied(
            f"the image {name!r} is not allowed here",
            field=field,
            expected=f"a name like one of: {allowed}",
        )


def check_url(url: str, field: str) -> None:
    """Raises Invalid where this is no URL that we would call: see `protocol/model/urls.py`."""
    read_url(url, field)


def _check_word(word: str, field: str) -> None:
    if "\0" in word or (not word.isascii() and _has_surrogates(word)):
        raise Invalid(
            f"{field} has a character that no process can be given",
            field=field,
            expected="text without NUL and half characters",
        )


def _has_surrogates(word: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in word)
