"""The image-creator family, line by line: the promises of its document, and how its open points are
resolved.

Each test carries the line it holds, in its docstring.
"""

import io
import json
import zipfile
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from tornado.httpclient import HTTPResponse

from node.config import NodeSettings
from protocol.api.image_creator.specification import redirect_to

BUILD_ISO: dict[str, Any] = {
    "redirect": "http://localhost/",
    "commands": [
        {"name": "build iso", "command": "#!/bin/bash\n/toiso/command.sh -q\n", "arguments": []}
    ],
}
"""The document's own example."""

pytestmark = pytest.mark.gen_test


class Api:
    """What a client of the family does, over a real connection."""

    def __init__(self, http_client, base_url: str) -> None:
        self.client = http_client
        self.base = base_url

    async def call(self, method: str, path: str, **options: Any) -> HTTPResponse:
        """A request, redirects not followed, errors returned."""
        if method == "POST" and "body" not in options:
            options["body"] = ""
        url = path if path.startswith("http") else self.base + path
        return await self.client.fetch(
            url, method=method, follow_redirects=False, raise_error=False, **options
        )

    async def create(self, specification: Any = None, **changes: Any) -> HTTPResponse:
        """POST the specification as a JSON body."""
        document = specification if specification is not None else {**BUILD_ISO, **changes}
        return await self.call("POST", "/create", body=json.dumps(document))

    async def built(self, *scripts: str, **changes: Any) -> dict[str, Any]:
        """The status of a build of these scripts when it has stopped."""
        commands = [
            {"name": f"command {i}", "command": text, "arguments": []}
            for i, text in enumerate(scripts)
        ]
        return await self.stopped(await self.create(commands=commands, **changes))

    async def stopped(self, created: HTTPResponse) -> dict[str, Any]:
        """The status of the build that was created, when it has stopped."""
        assert created.code == 303, created.body
        url = status_url(created)
        status = json.loads((await self.call("GET", url)).body)
        while status["status"] != "stopped":
            after = status["revision"]
            response = await self.call("GET", f"{url}?wait=10&after={after}")
            status = json.loads(response.body)
        return status


@pytest.fixture
def api(http_client, base_url) -> Api:
    """The family at its server."""
    return Api(http_client, base_url)


def status_url(created: HTTPResponse) -> str:
    """The status URL in a redirect."""
    return parse_qs(urlsplit(created.headers["Location"]).query)["status"][0]


def refusal(response: HTTPResponse, code: int, field: str) -> dict[str, Any]:
    """An error that names this field and what was expected."""
    assert response.code == code, response.body
    error = json.loads(response.body)
    assert error["field"] == field, error
    assert error["expected"]
    return error


# Section 0a: promised behaviours


def test_base_image_is_locally_configurable() -> None:
    """Base image is locally configurable: `BASE_IMAGE = "codersos/linux-image-creator"`."""
    from protocol.program.settings import load

    assert NodeSettings().base_image == "codersos/linux-image-creator"
    assert load(NodeSettings, "node", environment={"BASE_IMAGE": "a/b"}).base_image == "a/b"
    assert load(NodeSettings, "node", environment={"IMAGEPOOL_BASE_IMAGE": "c"}).base_image == "c"


async def test_create_accepts_the_request_body(api) -> None:
    """Accepts the JSON spec as the **request body**."""
    created = await api.create()
    assert created.code == 303
    assert (await api.stopped(created))["commands"][0]["name"] == "build iso"


async def test_create_accepts_the_specification_argument(api) -> None:
    """Accepts it as the **`specification` argument** (`/create?specification=…`)."""
    path = "/create?" + urlencode({"specification": json.dumps(BUILD_ISO)})
    assert (await api.call("POST", path)).code == 303


async def test_redirect_is_required(api) -> None:
    """Spec keys: `redirect` (required), `image` (optional), `commands` (list)."""
    refusal(await api.create({"commands": []}), 400, "redirect")
    refusal(await api.create({"redirect": "http://localhost/"}), 400, "commands")
    refusal(await api.create(commands={}), 400, "commands")
    refusal(await api.create(image=7), 400, "image")
    assert (await api.create(commands=[], image="debian:12")).code == 303


@pytest.mark.parametrize(
    ("redirect", "location"),
    [
        ("http://asd.asd/x/", "http://asd.asd/x/?status=STATUSURL"),
        ("http://asd.asd/x?asd=asd", "http://asd.asd/x?asd=asd&status=STATUSURL"),
    ],
)
async def test_the_user_is_redirected_with_the_status_url(api, redirect, location) -> None:
    """`redirect` is a URL; the user is redirected there with an extra argument
    `status=STATUSURL`.
    """
    created = await api.create(redirect=redirect)
    url = status_url(created)
    assert created.headers["Location"] == location.replace("STATUSURL", url)


async def test_as_much_as_possible_is_left_intact() -> None:
    """ "leaving as much intact as possible"."""
    odd = "http://u@h:81/%7Ea/;p?b=%20c&d=ä&&e#f?g"
    moved = redirect_to(odd, "http://s/status/1")
    assert moved == "http://u@h:81/%7Ea/;p?b=%20c&d=%C3%A4&&e&status=http://s/status/1#f?g"


async def test_status_url_is_the_url_of_get_status(api) -> None:
    """STATUSURL = the URL of `GET /status/ID`."""
    created = await api.create()
    assert urlsplit(status_url(created)).path == f"/status/{json.loads(created.body)['id']}"
    assert (await api.call("GET", status_url(created))).code == 200


@pytest.mark.parametrize("node_settings", [{"images": ("debian:*",)}])
async def test_images_may_be_restricted(api, node_settings) -> None:
    """`image`: docker image name to use instead of the base; server **may restrict** which
    images it accepts.
    """
    assert (await api.create(image="debian:12")).code == 303
    error = refusal(await api.create(image="evil:latest"), 403, "image")
    assert "debian:*" in error["expected"]


async def test_each_command_must_be_complete(api) -> None:
    """Each command: `name` MUST be given; **either `url` or `command`** MUST be given;
    `arguments` must be given.
    """
    good = {"name": "n", "command": "c", "arguments": []}
    for missing, field in (
        ("name", "commands[1].name"),
        ("command", "commands[1].command"),
        ("arguments", "commands[1].arguments"),
    ):
        bad = {key: value for key, value in good.items() if key != missing}
        refusal(await api.create(commands=[good, bad]), 400, field)
    refusal(await api.create(commands=[{**good, "name": ""}]), 400, "commands[0].name")


async def test_output_is_what_the_command_printed(api) -> None:
    """`command` text is saved to `/tmp/command`, made executable, executed with `arguments` as
    argv: what runs is tested on the real engine in tests/system; here its output comes back.
    """
    status = await api.built("print hello")
    assert status["commands"][0]["output"] == "hello\n"


async def test_the_documents_curl_example(api) -> None:
    """curl example: `redirect` `http://localhost/`, one command `"build iso"` … `arguments: []`."""
    created = await api.call(
        "POST",
        "/create",
        headers={"Content-Type": "application/json"},
        body='{"redirect":"http://localhost/","commands":[{"name":"build iso","command":'
        '"#!/bin/bash\\n/toiso/command.sh -q\\n","arguments":[]}]}',
    )
    assert created.code == 303
    assert created.headers["Location"].startswith("http://localhost/?status=http://")
    assert (await api.stopped(created))["commands"][0]["exitcode"] == 0


async def test_status_codes(api) -> None:
    """`status`: `waiting` (not started) / `running` / `stopped`."""
    hang = [{"name": "h", "command": "hang", "arguments": []}]
    running, waiting = await api.create(commands=hang), await api.create(commands=hang)
    seen = [
        json.loads((await api.call("GET", status_url(created))).body)["status"]
        for created in (running, waiting)
    ]
    assert seen == ["running", "waiting"]


async def test_all_commands_are_present_in_order(api) -> None:
    """`commands`: all commands of the create request MUST be present (in order); there MAY be
    additional ones.
    """
    status = await api.built("exit 4", "print b", "artifact 9")
    names = [command["name"] for command in status["commands"]]
    assert names[:3] == ["command 0", "command 1", "command 2"]


async def test_a_stopped_command_has_output_and_exitcode(api) -> None:
    """per command: `name`, `status`, `output` = stdout+stderr combined, `exitcode` integer;
    stopped **must** have.
    """
    status = await api.built("print a\nexit 4", "print b")
    for command in status["commands"]:
        assert command["status"] == "stopped"
        assert isinstance(command["output"], str)
        assert isinstance(command["exitcode"], int)
    assert [command["exitcode"] for command in status["commands"]][:2] == [4, 0]


async def test_download_is_the_result(api) -> None:
    """`download`: URL of the result once status is `stopped`."""
    status = await api.built("artifact 5000")
    response = await api.call("GET", status["download"])
    assert (response.code, len(response.body)) == (200, 5000)
    assert urlsplit(status["download"]).path.startswith("/download/")
    assert status["download"].endswith(".iso")


async def test_an_unknown_id(api) -> None:
    """IDs: an unknown one, and one that is none, are 404 with `{"error": …}`."""
    for identity in ("0", "0" * 32, "nothing-here", "..%2f..%2fetc"):
        response = await api.call("GET", f"/status/{identity}")
        assert response.code == 404
        assert json.loads(response.body).get("error") or json.loads(response.body)["detail"]


@pytest.mark.parametrize("node_settings", [{"priority": 7}])
async def test_status_of_the_server(api, node_settings) -> None:
    """`GET /status` → `{"status": "ready"|"busy", "priority": <int>}`; higher priority =
    favoured.
    """
    body = (await api.call("GET", "/status")).body
    assert json.loads(body) == {"status": "ready", "priority": 7}


async def test_source(api) -> None:
    """`GET /source` → zip of the current source code; never keys or local settings."""
    response = await api.call("GET", "/source")
    with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    for expected in ("imagepool/__main__.py", "node/files/supervisor.sh", "scheduler/app.py"):
        assert expected in names
    assert not [name for name in names if name.endswith((".pem", ".pyc", "lock"))]


async def test_test_create_issues_no_commands(api) -> None:
    """`GET /test/create` → "same as GET /create but no commands will be issued"."""
    hang = {**BUILD_ISO, "commands": [{"name": "h", "command": "hang", "arguments": []}]}
    path = "/test/create?" + urlencode({"specification": json.dumps(hang)})
    created = await api.call("GET", path)
    status = json.loads((await api.call("GET", status_url(created))).body)
    assert status["status"] == "stopped"
    assert status["commands"][0]["exitcode"] == 0
    refusal(await api.call("GET", "/test/create?specification=%7B%7D"), 400, "redirect")


async def test_test_status(api) -> None:
    """`GET /test/status` → same as `GET /status`."""
    one, other = await api.call("GET", "/test/status"), await api.call("GET", "/status")
    assert one.body == other.body


# Section 0d: what the document leaves open, as resolved


async def test_an_id_is_taken_from_the_redirect(api) -> None:
    """example `/status/0`: a client must take the id from the redirect. design.md: one id of 128
    bits everywhere.
    """
    identity = json.loads((await api.create()).body)["id"]
    assert len(identity) == 32
    assert int(identity, 16) >> 80 > 0


@pytest.mark.parametrize(
    "node_settings", [{"anonymous": "user"}]
)  # a proxy's clients are not local
async def test_status_urls_are_absolute_by_host(api, base_url, node_settings) -> None:
    """Emit an absolute URL by default built from Host/X-Forwarded-*."""
    assert status_url(await api.create()).startswith(f"{base_url}/status/")
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "pool.example:8443"}
    created = await api.call("POST", "/create", body=json.dumps(BUILD_ISO), headers=headers)
    assert status_url(created).startswith("https://pool.example:8443/status/")
    headers = {"X-Forwarded-Host": "evil@host/path"}
    refused = await api.call("POST", "/create", body=json.dumps(BUILD_ISO), headers=headers)
    refusal(refused, 400, "Host")


@pytest.mark.parametrize("node_settings", [{"relative_urls": True}])
async def test_status_urls_are_relative_by_setting(api, node_settings) -> None:
    """with a setting for relative: the existing web client joins `build_server + status`."""
    created = await api.create(redirect="http://page/installing.html?build_server=http%3A//b")
    joined = created.headers["Location"]
    assert joined.startswith("http://page/installing.html?build_server=http%3A//b&status=/status/")
    assert json.loads((await api.call("GET", status_url(created))).body)["status"]


async def test_colon_and_slash_stay_readable(api, base_url) -> None:
    """leave `:` and `/` unescaped (legal in a query) so both naive and `parse_qs` readers work."""
    location = (await api.create()).headers["Location"]
    assert f"status={base_url}/status/" in location


@pytest.mark.parametrize(
    ("redirect", "moved"),
    [
        ("http://a/#f", "http://a/?status=S#f"),
        ("http://a/?b#f?x", "http://a/?b&status=S#f?x"),
        ("http://a/?", "http://a/?status=S"),
        ("http://a/?b&", "http://a/?b&status=S"),
        ("http://a/?status=old", "http://a/?status=old&status=S"),
        ("http://a", "http://a?status=S"),
    ],
)
def test_where_the_argument_goes(redirect, moved) -> None:
    """insert before `#`; ending in `?` or `&`: append without doubling; existing `status=`: keep
    and append ours.
    """
    assert redirect_to(redirect, "S") == moved


async def test_a_command_by_url_is_fetched(api, base_url, tmp_path) -> None:
    """Implement `url`: server fetches the text (http/https, size/time limit) and treats it as
    `command`.
    """
    script = await api.built("artifact 20")  # something of ours that has a URL: its log
    assert script["status"] == "stopped"
    commands = [{"name": "by url", "url": f"{base_url}/test/status", "arguments": []}]
    status = await api.stopped(await api.create(commands=commands))
    assert status["commands"][0]["exitcode"] == 0


async def test_command_wins_over_url(api) -> None:
    """both given → `command` wins."""
    both = {"name": "n", "url": "http://localhost:1/", "command": "print mine", "arguments": []}
    status = await api.stopped(await api.create(commands=[both]))
    assert status["commands"][0]["output"] == "mine\n"


async def test_a_url_that_cannot_be_fetched(api, base_url) -> None:
    """fetch failure → that command is `stopped` with non-zero exitcode and the reason in
    `output`.
    """
    commands = [
        {"name": "missing", "url": f"{base_url}/nothing", "arguments": []},
        {"name": "next", "command": "print on", "arguments": []},
    ]
    status = await api.stopped(await api.create(commands=commands))
    assert status["commands"][0]["exitcode"] == 125
    assert "answered 404" in status["commands"][0]["output"]
    assert status["commands"][1]["output"] == "on\n"
    bad = [{"name": "n", "url": "file:///etc/passwd", "arguments": []}]
    refusal(await api.create(commands=bad), 400, "commands[0].url")


@pytest.mark.parametrize("node_settings", [{"fetch_limit": 5}])
async def test_a_url_with_too_much_behind_it(api, base_url, node_settings) -> None:
    """size/time limit: more than `fetch_limit` bytes is a failed fetch."""
    commands = [{"name": "n", "url": f"{base_url}/status", "arguments": []}]
    status = await api.stopped(await api.create(commands=commands))
    assert "more than 5 bytes" in status["commands"][0]["output"]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ("x", "commands[0].arguments"),
        ([1], "commands[0].arguments[0]"),
        (None, "commands[0].arguments"),
    ],
)
async def test_arguments_are_strings(api, arguments, field) -> None:
    """Missing → 400 naming the field; `[]` fine; non-strings → 400."""
    command = {"name": "n", "command": "c", "arguments": arguments}
    refusal(await api.create(commands=[command]), 400, field)


async def test_stopped_means_finished_whatever_the_result(api) -> None:
    """`stopped` = finished, whatever the result; success is in `exitcode`."""
    status = await api.built("exit 9")
    assert (status["status"], status["commands"][0]["exitcode"]) == ("stopped", 9)
    assert status["result"] == "failed"


async def test_it_continues_after_a_failing_command(api) -> None:
    """continue after a failing command? original continues."""
    status = await api.built("exit 1", "print still here")
    assert status["commands"][1]["output"] == "still here\n"


async def test_download_only_when_there_is_an_iso(api) -> None:
    """only when an ISO exists; absent otherwise. A failed command does not take the ISO away."""
    assert "download" in await api.built("exit 1", "artifact 10")
    running = await api.create(commands=[{"name": "h", "command": "hang", "arguments": []}])
    status = json.loads((await api.call("GET", status_url(running))).body)
    assert "download" not in status
    early = await api.call("GET", f"/download/{status['id']}/x.iso")
    assert early.code == 404
    assert "running" in json.loads(early.body)["error"]


async def test_test_create_by_post_too(api) -> None:
    """serve **both GET and POST** on `/test/create`; must need no docker; also serve
    `/test/status/ID`.
    """
    created = await api.call("POST", "/test/create", body=json.dumps(BUILD_ISO))
    assert created.code == 303
    path = urlsplit(status_url(created)).path
    status = json.loads((await api.call("GET", "/test" + path)).body)
    assert [c["status"] for c in status["commands"]] == ["stopped"]
    assert status["commands"][0]["output"]


async def test_the_form_field(api) -> None:
    """accept form field too: the browser client posts a hidden field `specification`."""
    fields = urlencode({"specification": json.dumps(BUILD_ISO, ensure_ascii=False)})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    created = await api.call("POST", "/create", body=fields, headers=headers)
    assert created.code == 303
    refusal(await api.call("POST", "/create", body="a=b", headers=headers), 400, "specification")


async def test_get_create_is_refused(api) -> None:
    """GET /create is ambiguous (state-changing); accept or 405."""
    response = await api.call("GET", "/create?specification=" + quote(json.dumps(BUILD_ISO)))
    assert (response.code, response.headers["Allow"]) == (405, "POST")


async def test_busy_when_all_slots_are_used(api) -> None:
    """return `busy` when all build slots are used; `/create` while busy → queue (`waiting`)."""
    hang = [{"name": "h", "command": "hang", "arguments": []}]
    await api.create(commands=hang)
    assert json.loads((await api.call("GET", "/status")).body)["status"] == "busy"
    assert (await api.create(commands=hang)).code == 303


@pytest.mark.parametrize("node_settings", [{"waiting_limit": 1}])
async def test_a_full_queue_answers_503(api, node_settings) -> None:
    """`/create` while busy → 503 when nothing more may wait, with Retry-After."""
    hang = [{"name": "h", "command": "hang", "arguments": []}]
    for _ in range(2):
        assert (await api.create(commands=hang)).code == 303
    full = await api.create(commands=hang)
    assert full.code == 503
    assert int(full.headers["Retry-After"]) > 0


async def test_additional_commands_show_the_iso_step(api) -> None:
    """ "MAY be additional commands": a synthetic "locate iso" step so that an `iso_path.sh`
    failure is visible.
    """
    status = await api.built("artifact 10")
    assert status["commands"][-1]["name"] == "find the image"
    assert status["commands"][-1]["exitcode"] == 0


async def test_pages_of_other_origins_may_use_it(api) -> None:
    """CORS headers on `/status`, `/status/ID`, `/download/…`: page and server are different
    origins.
    """
    for path in ("/status", "/status/0", "/download/0/a.iso", "/test/status"):
        response = await api.call("GET", path)
        assert response.headers["Access-Control-Allow-Origin"] == "*"
    asked = await api.call("OPTIONS", "/create")
    assert asked.code == 204
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    assert "Content-Type" in asked.headers["Access-Control-Allow-Headers"]


async def test_the_redirect_has_a_body(api) -> None:
    """The redirect has a body with id and status URL, so that curl without -L shows something."""
    created = await api.create()
    body = json.loads(created.body)
    assert body["status"] == status_url(created)
    assert body["status"].endswith(body["id"])


async def test_output_is_capped_in_a_status(api) -> None:
    """`output` in a status is capped: 1 MiB a command, last part, a line that says so and where
    the whole log is.
    """
    status = await api.built("bytes 3000000\nprint the end")
    output = status["commands"][0]["output"]
    head, _, _ = output.partition("\n")
    assert "the last 1048576 of 3000008 bytes" in head
    assert f"/api/v1/builds/{status['id']}/log" in head
    assert output.endswith("the end\n")


async def test_status_is_held_until_it_changes(api) -> None:
    """`GET /status/ID?wait=` is held until the build changes."""
    hang = [{"name": "h", "command": "sleep 0.3", "arguments": []}]
    created = await api.create(commands=hang)
    status = {"status": "", "revision": 0}
    asked = 0
    while status["status"] != "stopped":
        url = f"{status_url(created)}?wait=10&after={status['revision']}"
        status = json.loads((await api.call("GET", url)).body)
        asked += 1
    assert asked < 12
    refused = await api.call("GET", status_url(created) + "?wait=soon")
    refusal(refused, 400, "wait")
