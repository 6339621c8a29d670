"""The way to the Docker Engine: one client for all threads, made at the first call and not before,
as a node starts with its engine down. Foreign errors are translated here, but those of a pull and
of a Dockerfile's steps, which need their own reading.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import kwargs_from_env

from node.engines.docker_client import ANSWER, Client
from node.engines.errors import EngineDown, EngineError, ImageUnknown

_API = (1, 41)
_CONNECTIONS = 64  # kept for reuse


class Unanswered(EngineDown):
    """The connection failed, not the request."""


class Connection:
    """What all parts of the engine ask it through."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: Client | None = None
        self.cpus = 0  # of the engine's machine; known once it was asked anything
        self.closed = threading.Event()

    def close(self) -> None:
        """Cut every connection."""
        self.closed.set()
        with self._lock:
            client, self._made = self._made, None
        if client:
            client.cut()

    @contextmanager
    def asking(
        self,
        refusal: type[EngineError] = EngineDown,
        *,
        conflict: type[EngineError] | None = None,
        absent: tuple[int, ...] = (),
    ) -> Iterator["Client"]:
        """The client, its errors translated: `refusal` is what an answer of 4xx or 5xx becomes,
        `conflict` what 409 does. Answers in `absent` are none: there was nothing to be done.
        """
        try:
            yield self._client()
        except APIError as error:
            if error.status_code in absent:
                return
            if isinstance(error, ImageNotFound):
                refusal = ImageUnknown
            elif conflict and error.status_code == 409:
                refusal = conflict
            raise refusal(_words(error)) from error
        except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise Unanswered(f"the Docker Engine does not answer: {error}") from error

    def _client(self) -> "Client":
        with self._lock:
            if self.closed.is_set():
                raise EngineDown("the engine was closed")
            if self._made is None:
                client = Client(
                    version="auto",
                    timeout=ANSWER,
                    max_pool_size=_CONNECTIONS,
                    **kwargs_from_env(),
                )
                version = client.api_version
                if tuple(map(int, version.split("."))) < _API:
                    raise EngineDown(f"the Docker Engine speaks API {version}, not 1.41")
                self.cpus = client.info()["NCPU"]
                self._made = client
            return self._made


def _words(error: APIError) -> str:
    return str(error.explanation or error)
