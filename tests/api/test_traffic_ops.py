"""The Traffic Ops family: its document's examples, and what behaviours are known of the original.

What is made, and boots, is in tests/system/test_isos.py.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from msgspec.structs import replace
from tornado.httpclient import HTTPResponse
from tornado.simple_httpclient import HTTPStreamClosedError

from node.parts import Node
from protocol.api.traffic_ops import recipe
from protocol.api.traffic_ops.settings import TrafficOpsSettings
from protocol.errors import Conflict, Unavailable
from protocol.model.build import Build, Result, State
from protocol.ports.service import LOCAL, OpenArtifact, Role
from tests.traffic_ops import EXAMPLE

pytestmark = pytest.mark.gen_test(timeout=60)

VERSIONS = {
    "os_versions": {
        "centos72": {"title": "CentOS 7.2", "base": {"kind": "image", "name": "os/centos72"}}
    }
}
SIZE = 300_000
NO_IP4 = ["1.3.3", "1::2", "0.0.0.0", "224.0.0.1", "127.0.0.1", "255.255.255.255", "x"]
NO_IP6 = ["1.2.3.4", "::ffff:1.2.3.4", "::", "::1", "ff02::1", "1::3%eth0", "x"]


@pytest.fixture
def node_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """With the document's OS version."""
    more = getattr(request, "param", {})
    return {"traffic_ops": msgspec.convert(VERSIONS, TrafficOpsSettings), **more}


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the dummy engine plays in place of the true command."""
    plays(monkeypatch, f"warn making it\n{made(SIZE)}")


def made(size: int) -> str:
    """An ISO of so many bytes, as a stream or where a kept one belongs."""
    return f"bytes {size}\nfile /made/test.quest-centos72.iso {size}"


def plays(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The command is this script."""
    monkeypatch.setattr(recipe, "_SCRIPT", text)


class Api:
    """What a client of the family does."""

    def __init__(self, http_client, base_url: str) -> None:
        self.client, self.base = http_client, base_url

    async def call(self, method: str, path: str, **options: Any) -> HTTPResponse:
        """A request; errors are returned."""
        return await self.client.fetch(
            self.base + path, method=method, raise_error=False, request_timeout=20, **options
        )

    async def isos(self, version: str = "1.3", headers: Any = None, **changes: Any) -> HTTPResponse:
        """The document's request, with changes; None takes a key away."""
        body = {name: value for name, value in {**EXAMPLE, **changes}.items() if value is not None}
        path = f"/api/{version}/isos"
        return await self.call("POST", path, body=json.dumps(body), headers=headers)


@pytest.fixture
def api(http_client, base_url) -> Api:
    """A client."""
    return Api(http_client, base_url)


def alerts(response: HTTPResponse) -> list[str]:
    """The texts of an answer that is nothing but errors."""
    body = json.loads(response.body)
    assert set(body) == {"alerts"}, body
    assert {alert["level"] for alert in body["alerts"]} == {"error"}
    return [alert["text"] for alert in body["alerts"]]


async def test_the_documents_example(api: Api) -> None:
    """Answered as there, headers and all; the URL works, at the port that was asked."""
    response = await api.isos()
    assert response.code == 200
    port = urlsplit(api.base).port
    assert json.loads(response.body) == {
        "alerts": [{"level": "success", "text": "Generate ISO was successful."}],
        "response": {
            "isoURL": f"http://localhost:{port}/iso/test.quest-centos72.iso",
            "isoName": "test.quest-centos72.iso",
        },
    }
    digest = base64.b64encode(hashlib.sha512(response.body).digest()).decode()
    wanted = {
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Headers": "Origin, X-Requested-With, Content-Type, Accept",
        "Access-Control-Allow-Methods": "POST,GET,OPTIONS,PUT,DELETE",
        "Access-Control-Allow-Origin": "*",
        "Cache-Control": "no-cache, no-store, max-age=0, must-revalidate",
        "Content-Type": "application/json",
        "Vary": "Accept-Encoding",
        "Whole-Content-Sha512": digest,
    }
    assert {name: response.headers.get(name) for name in wanted} == wanted
    download = await api.call("GET", "/iso/test.quest-centos72.iso")
    assert (download.code, len(download.body)) == (200, SIZE)
    assert 'filename="test.quest-centos72.iso"' in download.headers["Content-Disposition"]
    assert (await api.call("HEAD", "/iso/test.quest-centos72.iso")).code == 200


@pytest.mark.parametrize(
    ("version", "stream"),
    [("1.1", "yes"), ("1.3", "YES"), ("1.5", True), ("2.0", None), ("2.0", "no"), ("4.1", None)],
)
async def test_a_stream(api: Api, node: Node, version: str, stream: Any) -> None:
    """The ISO itself, and nothing of it is kept: where it is asked for, and always from 2.0 on."""
    response = await api.isos(version, stream=stream)
    assert (response.code, len(response.body)) == (200, SIZE)
    assert response.headers["Content-Type"] == "application/octet-stream"
    wanted = 'attachment; filename="test.quest-centos72.iso"'
    assert response.headers["Content-Disposition"] == wanted
    assert (await api.call("GET", "/iso/test.quest-centos72.iso")).code == 404


@pytest.mark.parametrize("stream", [None, "no", "No", False, "0", ""])
async def test_no_stream(api: Api, stream: Any) -> None:
    """Where it is not asked for."""
    assert "isoURL" in json.loads((await api.isos(stream=stream)).body)["response"]


@pytest.mark.parametrize("version", ["1.0", "1.6", "2.1", "v1", "5.0", "1"])
async def test_versions_that_never_were(api: Api, version: str) -> None:
    """There is nothing."""
    assert (await api.isos(version)).code == 404


async def test_osversions(api: Api) -> None:
    """Titles, with what a request calls them."""
    response = await api.call("GET", "/api/1.3/osversions")
    assert json.loads(response.body) == {"response": {"CentOS 7.2": "centos72"}}


async def test_all_problems_at_once(api: Api, node: Node) -> None:
    """Each in an alert of its own, in the order of the original; nothing is built."""
    response = await api.call("POST", "/api/1.3/isos", body="{}")
    assert response.code == 400
    assert alerts(response) == [
        "osversionDir is required",
        "hostName is required",
        "domainName is required",
        "rootPass is required",
        "dhcp is required",
        "interfaceMtu is required",
    ]
    assert not (await node.service.changes(LOCAL)).builds


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"osversionDir": "centos73"}, 'invalid OS version directory: "centos73"'),
        ({"osversionDir": "../centos72"}, 'invalid OS version directory: "../centos72"'),
        ({"ipAddress": None}, "ipAddress is required if DHCP is no"),
        ({"ipNetmask": ""}, "ipNetmask is required if DHCP is no"),
        ({"ipGateway": None}, "ipGateway is required if DHCP is no"),
        ({"interfaceMtu": 0}, "interfaceMtu is required"),
        (
            {"mgmtIpAddress": "10.0.0.1", "mgmtIpGateway": "10.0.0.2"},
            "mgmtInterface is required when mgmtIpAddress is provided",
        ),
        (
            {"mgmtIpAddress": "10.0.0.1", "mgmtInterface": "eth1"},
            "mgmtIpGateway is required when mgmtIpAddress is provided",
        ),
        (
            {"mgmtIpGateway": "10.0.0.1"},
            "mgmtInterface is required when mgmtIpGateway is provided",
        ),
    ],
)
async def test_one_problem(api: Api, changes: dict[str, Any], text: str) -> None:
    """In the words of the original."""
    response = await api.isos(**changes)
    assert (response.code, alerts(response)) == (400, [text])


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("hostName", ['a"b', "a\nb", "a$b", "a`b", "a;b", "-a", "a..b", "ä", "a" * 64, 5, "a b"]),
        ("domainName", ["a/b", "../a", 'x"', "$(reboot)", "a\\b", ["a"]]),
        ("hostName", ["a." * 86 + "abc"]),
        ("rootPass", ["two\nlines", "nul\0", 12345, "x" * 257]),
        ("dhcp", ["maybe", 2, [], "yes "]),
        ("stream", ["maybe", "yes\n", 2]),
        ("interfaceMtu", [-1, 100, 1e4, "1500.0", "much", 70000, True, []]),
        ("interfaceName", ["eth0;reboot", "a" * 16, "eth 0", '"', "../x", "$x", 1]),
        ("disk", ["../sda", "sda;sdb", "/dev/sda", "sd a", "`x`", "sda,", '"', "x" * 65, "a/.."]),
        ("ipAddress", [*NO_IP4, "1.3.3.7/24", "1.3.3.256", "01.2.3.4", 7]),
        ("ipNetmask", ["255.0.255.0", "0.0.0.255", "24", "x", "1::"]),
        ("ipGateway", [*NO_IP4, "8.0.0.8\n", "$x"]),
        ("ip6Address", [*NO_IP6, "1::3/129", "1::3/", "1::3/-1", "1::3/ 4"]),
        ("ip6Gateway", [*NO_IP6, "8::8/64"]),
        ("mgmtIpAddress", ["x", "10.0.0.1/x", "10.0.0.1/33", "::ffff:10.0.0.1"]),
        ("mgmtIpNetmask", ["x", "255.0.255.0"]),
        ("mgmtInterface", ["eth 0", '"']),
    ],
)
async def test_values_that_are_refused(api: Api, field: str, values: list[Any]) -> None:
    """By the field's name, and with what was expected."""
    for value in values:
        response = await api.isos(**{field: value})
        told = alerts(response)
        assert response.code == 400, value
        assert any(text.startswith(field) for text in told), (value, told)


@pytest.mark.parametrize(
    "body", ["", "[]", "null", '"x"', "{", "[" * 5000, b"\xff", '{"rootPass": "\\ud800"}']
)
async def test_what_is_no_object(api: Api, body: Any) -> None:
    """An alert, like all else."""
    response = await api.call("POST", "/api/1.3/isos", body=body)
    assert (response.code, len(alerts(response))) == (400, 1)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"ipAddress": 167772161}, "ipAddress is not valid: expected a string"),
        ({"interfaceMtu": True}, "interfaceMtu is not valid: expected a whole number"),
    ],
)
async def test_a_wrong_kind_of_value(api: Api, changes: dict[str, Any], text: str) -> None:
    """Is one problem."""
    (told,) = alerts(await api.isos(**changes))
    assert told.startswith(text)


async def test_what_is_passed_over(api: Api) -> None:
    """Keys that it does not know; the network, with DHCP."""
    response = await api.isos(
        dhcp="yes", ipAddress="nonsense", ip6Address="nonsense", id=12, type={"a": ["b"]}
    )
    assert response.code == 200


async def test_a_failure_before_the_first_byte(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alert, streamed or not."""
    plays(monkeypatch, "warn there is no isolinux/isolinux.bin\nexit 3")
    for stream in ("yes", "no"):
        response = await api.isos(stream=stream)
        assert response.code == 500
        (text,) = alerts(response)
        assert text.startswith("unable to generate ISO")
        assert "ended with 3: there is no isolinux/isolinux.bin; see /api/v1/builds/" in text


async def test_a_failure_after_the_first_byte(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is cut: nobody takes the part for the whole."""
    plays(monkeypatch, f"bytes {SIZE}\nexit 3")
    with pytest.raises(HTTPStreamClosedError):
        await api.isos(stream="yes")


async def test_the_same_name_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one made is what its URL leads to."""
    await api.isos()
    plays(monkeypatch, made(5000))
    await api.isos(ipAddress="1.3.3.8")
    assert len((await api.call("GET", "/iso/test.quest-centos72.iso")).body) == 5000


async def test_a_stream_of_the_same_name(api: Api) -> None:
    """It is kept nowhere, and leaves the URL of the one before as it is."""
    await api.isos()
    assert (await api.isos(stream="yes", ipAddress="1.3.3.8")).code == 200
    assert len((await api.call("GET", "/iso/test.quest-centos72.iso")).body) == SIZE


@pytest.mark.parametrize("stream", ["yes", "no"])
async def test_a_client_that_hangs_up(
    api: Api, node: Node, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    """Nobody waits for the ISO: the build is cancelled, and says so."""
    plays(monkeypatch, "hang")
    build = await left(api, node, stream)
    assert build.result is Result.CANCELLED


@pytest.mark.parametrize("error", [Unavailable("away"), Conflict("taken"), RuntimeError("a fault")])
async def test_a_stream_that_cannot_be_opened(
    api: Api, node: Node, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The build does not wait for its reader until its time is over."""

    async def refuses(*_: Any) -> None:
        raise error

    monkeypatch.setattr(node.service, "open_artifact", refuses)
    response = await api.isos(stream="yes")
    assert (response.code >= 400, len(alerts(response))) == (True, 1)
    build = await one(node, State.STOPPED)
    assert build.result is Result.CANCELLED


class Breaking:
    """A stream that ends before its end."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"some"
        raise Unavailable("its node is gone")

    async def close(self) -> None:
        self.closed.set()


async def test_a_node_that_is_gone(api: Api, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is cut; the build ends as it ends, and nobody cancelled it."""
    stream, open_artifact = Breaking(), node.service.open_artifact

    async def broken(*arguments: Any) -> OpenArtifact:
        opened = await open_artifact(*arguments)
        await opened.stream.close()
        return replace(opened, stream=stream)

    cancel = node.service.cancel
    cancelled = []

    async def noted(*arguments: Any, **options: Any) -> Build:
        cancelled.append(arguments)
        return await cancel(*arguments, **options)

    monkeypatch.setattr(node.service, "open_artifact", broken)
    monkeypatch.setattr(node.service, "cancel", noted)
    with pytest.raises(HTTPStreamClosedError):
        await api.isos(stream="yes")
    await stream.closed.wait()
    assert (await one(node, State.STOPPED)).result is Result.FAILED
    assert not cancelled


async def left(api: Api, node: Node, stream: str) -> Build:
    """The build of a client that hung up while it ran, when it has ended."""
    address = urlsplit(api.base)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    body = json.dumps({**EXAMPLE, "stream": stream}).encode()
    head = f"Host: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(b"POST /api/1.3/isos HTTP/1.1\r\n" + head.encode() + body)
    await one(node, State.RUNNING)
    writer.close()
    return await one(node, State.STOPPED)


async def one(node: Node, state: State) -> Build:
    """The node's one build, when it has come to this."""
    changes = await node.service.changes(LOCAL)
    while not any(build.state is state for build in changes.builds):
        changes = await node.service.changes(LOCAL, cursor=changes.cursor, wait=30)
    (build,) = changes.builds
    return build


async def test_the_password_is_nowhere(api: Api, node: Node) -> None:
    """Neither it nor its hash is in what can be seen of the build."""
    password = "correct horse 'battery' $taple"
    await api.isos(rootPass=password)
    shown = json.dumps(json.loads((await api.call("GET", "/api/v1/builds")).body))
    (build,) = (await node.service.changes(LOCAL)).builds
    shown += str(await node.service.get(LOCAL, build.id))
    assert password not in shown
    assert "$1$" not in shown
    assert "ISO created [ centos72 ] for test.quest" in shown


# Who may


async def test_nobody(api: Api, node: Node) -> None:
    """Is told to log in, in the family's words."""
    await node.people.accounts.make_token("root", Role.ADMIN)
    for response in (await api.isos(), await api.call("GET", "/api/1.3/osversions")):
        assert (response.code, alerts(response)) == (401, ["Unauthorized, please log in."])
    response = await api.isos(headers={"Cookie": "mojolicious=imagepool-abcdefgh-nonsense"})
    assert response.code == 401


async def log_in(api: Api, name: str, password: str, headers: Any = None) -> HTTPResponse:
    """As the document of Traffic Ops has it."""
    body = json.dumps({"u": name, "p": password})
    return await api.call("POST", "/api/1.3/user/login", body=body, headers=headers)


@pytest.mark.parametrize(
    ("role", "code"),
    [(Role.VIEWER, 403), (Role.USER, 403), (Role.OPERATOR, 200), (Role.ADMIN, 200)],
)
async def test_roles(api: Api, node: Node, role: Role, code: int) -> None:
    """Operations and admin are our operator and admin; everybody may see the OS versions."""
    await node.people.accounts.make_token("root", Role.ADMIN)
    await node.people.accounts.put_user("ann", role, "correct horse battery")
    response = await log_in(api, "ann", "correct horse battery")
    assert json.loads(response.body) == {
        "alerts": [{"level": "success", "text": "Successfully logged in."}]
    }
    cookie = response.headers["Set-Cookie"]
    assert cookie.startswith("mojolicious=")
    for word in ("HttpOnly", "Path=/", "Max-Age=", "SameSite=Strict"):
        assert word in cookie
    assert "Secure" not in cookie  # it would not come back over HTTP
    headers = {"Cookie": cookie.partition(";")[0]}
    assert (await api.call("GET", "/api/1.3/osversions", headers=headers)).code == 200
    made = await api.isos(headers=headers)
    assert made.code == code
    if code == 403:
        assert alerts(made) == ["Forbidden"]
    else:
        download = await api.call("GET", "/iso/test.quest-centos72.iso", headers=headers)
        assert len(download.body) == SIZE


FEW = {"failure_limit": 2, "failure_window": 3600.0}


@pytest.mark.parametrize("node_settings", [FEW], indirect=True)
async def test_a_wrong_password(api: Api, node: Node) -> None:
    """In the original's words; after some of them there is a pause."""
    await node.people.accounts.put_user("root", Role.ADMIN, "correct horse battery")
    response = await log_in(api, "root", "wrong")
    assert (response.code, alerts(response)) == (401, ["Invalid username or password."])
    codes = [(await log_in(api, "root", "wrong")).code for _ in range(2)]
    assert codes == [401, 429]


async def test_a_page_of_another_origin(api: Api, node: Node) -> None:
    """May not use somebody's cookie."""
    await node.people.accounts.put_user("root", Role.ADMIN, "correct horse battery")
    response = await log_in(api, "root", "correct horse battery")
    cookie = response.headers["Set-Cookie"].partition(";")[0]
    headers = {"Cookie": cookie, "Origin": "http://evil.example"}
    assert (await api.isos(headers=headers)).code == 403
    assert (await log_in(api, "root", "correct horse battery", headers=headers)).code == 403


BEHIND = {"public_url": "https://isos.example"}


@pytest.mark.parametrize("node_settings", [BEHIND], indirect=True)
async def test_a_page_behind_a_proxy(api: Api, node: Node) -> None:
    """May use the cookie of its own origin, which goes by TLS only."""
    await node.people.accounts.put_user("root", Role.ADMIN, "correct horse battery")
    own = {"Origin": "https://isos.example"}
    response = await log_in(api, "root", "correct horse battery", headers=own)
    assert response.code == 200
    assert "Secure" in response.headers["Set-Cookie"]
    cookie = response.headers["Set-Cookie"].partition(";")[0]
    assert (await api.isos(headers={**own, "Cookie": cookie})).code == 200


async def test_logging_out(api: Api, node: Node) -> None:
    """The cookie proves nothing any more; it is none either for who has none."""
    await node.people.accounts.put_user("root", Role.ADMIN, "correct horse battery")
    response = await log_in(api, "root", "correct horse battery")
    headers = {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}
    for sent in (headers, headers, {}):
        response = await api.call("POST", "/api/1.3/user/logout", body="", headers=sent)
        assert response.code == 200
    assert (await api.isos(headers=headers)).code == 401


async def test_a_token_is_no_cookie(api: Api, node: Node) -> None:
    """What programs have stays out of browsers."""
    token, _ = await node.people.accounts.make_token("root", Role.ADMIN)
    assert (await api.isos(headers={"Cookie": f"mojolicious={token}"})).code == 401


async def test_the_session_before(api: Api, node: Node) -> None:
    """Ends with a new one."""
    await node.people.accounts.put_user("root", Role.ADMIN, "correct horse battery")
    response = await log_in(api, "root", "correct horse battery")
    headers = {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}
    await log_in(api, "root", "correct horse battery", headers=headers)
    assert (await api.isos(headers=headers)).code == 401


@pytest.mark.parametrize("node_settings", [{"images": ("other/*",)}], indirect=True)
async def test_what_the_operator_does_not_allow(api: Api, node: Node) -> None:
    """Says so: it is not for the role of who asks."""
    assert node.settings.images == ("other/*",)
    response = await api.isos()
    assert response.code == 403
    assert "os/centos72" in alerts(response)[0]


async def test_another_ones_iso(api: Api, node: Node) -> None:
    """Is not found under its name: what a URL leads to is one's own."""
    accounts = node.people.accounts
    root, _ = await accounts.make_token("root", Role.ADMIN)
    ann, _ = await accounts.make_token("ann", Role.OPERATOR)
    made = await api.isos(headers={"Authorization": f"Bearer {ann}"})
    assert made.code == 200
    path = "/iso/test.quest-centos72.iso"
    codes = [
        (await api.call("GET", path, headers={"Authorization": f"Bearer {token}"})).code
        for token in (ann, root)
    ]
    assert codes == [200, 404]
