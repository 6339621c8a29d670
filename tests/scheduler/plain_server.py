"""An image creator written from its document alone: nothing of this project is imported here.

It plays the commands: `print TEXT`, `exit CODE`, `wait` (until the test calls `go`); whatever else
a text says does nothing. Output is told when a command has ended, as the original does.
"""

import json
import secrets
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = Callable[["Handler"], None]


class Build:
    """One build, played by a thread."""

    def __init__(self, commands: list[dict[str, Any]], go: threading.Event) -> None:
        self.status = "waiting"
        self.commands = [{"name": c["name"], "status": "waiting"} for c in commands]
        self.texts = [c.get("command", f"print fetched {c.get('url')}") for c in commands]
        self.image = secrets.token_bytes(3_000_000)
        self.go = go
        self.killed = False

    def play(self) -> None:
        """Run the commands, one after another."""
        for command, text in zip(self.commands, self.texts, strict=True):
            self.status = command["status"] = "running"
            output, code = "", 0
            for line in text.splitlines():
                word, _, rest = line.partition(" ")
                if word == "wait":
                    self.go.wait(30)
                    if self.killed:
                        return
                elif word == "print":
                    output += rest + "\n"
                elif word == "exit":
                    code = int(rest)
                    break
            command.update(status="stopped", output=output, exitcode=code)
            self.status = "waiting"
        self.status = "stopped"


class PlainServer:
    """The server; a context manager. `answers` replaces what it says to `METHOD PATH`."""

    def __init__(self, priority: int = 10) -> None:
        self.status = "ready"
        self.priority: Any = priority
        self.answers: dict[str, Answer] = {}
        self.specifications: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.builds: dict[int, Build] = {}
        self.downloads = True
        self.status_url = "/status/{id}"
        self.download_url = "/download/{id}/CodersOS.iso"
        self.go = threading.Event()
        self.port = 0
        self._http: ThreadingHTTPServer | None = None

    def __enter__(self) -> "PlainServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve, at the same port as before."""
        self._http = Http(("127.0.0.1", self.port), Handler)
        self._http.owner = self
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """End, as a process does that is killed: all is forgotten."""
        if self._http is None:
            return
        self._http.shutdown()
        self._http.server_close()
        self._http = None
        for build in self.builds.values():
            build.killed = True
            build.go.set()
        self.builds, self.go = {}, threading.Event()

    def create(self, specification: dict[str, Any]) -> int:
        """Begin a build; its number."""
        number = len(self.builds) + 1
        build = self.builds[number] = Build(specification["commands"], self.go)
        threading.Thread(target=build.play, daemon=True).start()
        return number


class Http(ThreadingHTTPServer):
    """Knows whom it serves for, and ends without waiting for anybody."""

    owner: PlainServer
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever goes away in the middle is no matter of this server."""


class Handler(BaseHTTPRequestHandler):
    """The documented routes."""

    server: Http

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        """Status and download."""
        if self._made_up():
            return
        server, path = self.server.owner, urlsplit(self.path).path
        parts = path.strip("/").split("/")
        if path == "/status":
            self.say({"status": server.status, "priority": server.priority})
            return
        build = server.builds.get(int(parts[1])) if len(parts) > 1 and parts[1].isdigit() else None
        if build is None:
            self.say({"error": "Not found."}, 404)
        elif parts[0] == "status":
            document: dict[str, Any] = {"status": build.status, "commands": build.commands}
            if build.status == "stopped" and server.downloads:
                document["download"] = server.download_url.format(id=parts[1])
            self.say(document)
        else:
            self.send(200, {"Content-Type": "application/octet-stream"}, build.image)

    def do_POST(self) -> None:
        """A create."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server = self.server.owner
        query = parse_qs(urlsplit(self.path).query)
        specification = json.loads(query.get("specification", [body])[0])
        server.specifications.append(specification)
        if self._made_up():
            return
        assert specification["redirect"].startswith(("http://", "https://"))
        status = server.status_url.format(id=server.create(specification))
        joint = "&" if "?" in specification["redirect"] else "?"
        self.send(303, {"Location": f"{specification['redirect']}{joint}status={status}"}, b"")

    def _made_up(self) -> bool:
        server, path = self.server.owner, urlsplit(self.path).path
        server.requests.append(f"{self.command} {self.path}")
        answer = server.answers.get(f"{self.command} {path}")
        if answer is not None:
            answer(self)
        return answer is not None

    def say(self, value: Any, code: int = 200) -> None:
        """JSON."""
        self.send(code, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def send(self, code: int, headers: dict[str, str], body: bytes) -> None:
        """An answer."""
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


# What a broken server says


def html(handler: Handler) -> None:
    """A page, where JSON is due."""
    handler.send(200, {"Content-Type": "text/html"}, b"<html><h1>It works!</h1></html>")


def broken(handler: Handler) -> None:
    """An error without a word that means something."""
    handler.send(500, {"Content-Type": "text/plain"}, b"Traceback (most recent call last)")


def endless(handler: Handler) -> None:
    """A body without an end."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * (1 << 20))


def circle(handler: Handler) -> None:
    """A redirect to itself."""
    handler.send(302, {"Location": handler.path}, b"")


def silence(handler: Handler) -> None:
    """The connection ends without an answer."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def heard(handler: Handler) -> None:
    """The create is obeyed, and its answer lost."""
    server = handler.server.owner
    server.create(server.specifications[-1])
    silence(handler)


def saying(value: Any) -> Answer:
    """This JSON."""
    return lambda handler: handler.say(value)


def leading(location: str) -> Answer:
    """A redirect to there."""
    return lambda handler: handler.send(303, {"Location": location}, b"")
