"""Debian's image registry on loopback, where the engine asks for no TLS; with a password where a
test wants one.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
from msgspec import Struct

from tests.system.processes import Process

USER, PASSWORD = "builder", "correct horse"


class Registry(Struct, frozen=True):
    """One that serves."""

    address: str  # HOST:PORT
    login: dict[str, str] | None  # what the engine is to say to it

    def push(self, image: str, name: str) -> str:
        """Move an image of the engine there, layers and all; its name there."""
        repository = f"{self.address}/{name}"
        client = docker.APIClient()
        try:
            client.tag(image, repository, "latest")
            said = client.push(repository, "latest", auth_config=self.login)
            assert "error" not in said, said
            for gone in (f"{repository}:latest", image):
                client.remove_image(gone)
        finally:
            client.close()
        return f"{repository}:latest"


@contextlib.contextmanager
def a_docker_registry(folder: Path, *, password: bool = False) -> Iterator[Registry]:
    """A registry with nothing in it, whose files are in the folder."""
    settings: dict[str, object] = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
        "http": {"addr": "127.0.0.1:0"},
    }
    if password:
        users = folder / "users"
        users.write_text(f"{USER}:{_bcrypt(PASSWORD)}\n")
        settings["auth"] = {"htpasswd": {"realm": "test", "path": str(users)}}
    file = folder / "registry.yml"
    file.write_text(json.dumps(settings))  # which is YAML too
    process = Process("registry", ["docker-registry", "serve", str(file)], ends=None)
    try:
        heard, _ = process.line(r".*listening on (127\.0\.0\.1:\d+).*")
        login = {"username": USER, "password": PASSWORD} if password else None
        yield Registry(heard[1], login)
    finally:
        process.end()


def _bcrypt(word: str) -> str:
    """The only kind of hash that the registry takes; Perl is on every Debian and knows it."""
    script = "print crypt($ARGV[0], '$2y$05$' . 'abcdefghijklmnopqrstuu')"
    made = subprocess.run(["perl", "-e", script, word], capture_output=True, text=True, check=True)
    return made.stdout
