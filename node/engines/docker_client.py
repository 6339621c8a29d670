"""The SDK's client, with a time limit on every request but one, and a way to cut all of them."""

import contextlib
from typing import Any
from weakref import WeakSet

import docker
import requests
from docker.errors import create_api_error_from_http_exception
from docker.types import CancellableStream

ANSWER = 60.0
"""Seconds that the engine may take over an answer."""
_SILENCE = 300.0  # seconds between two signs of life of a pull


class Client(docker.APIClient):
    """See the module."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.trust_env = False  # no proxies and no .netrc between us and the engine
        self._streams: WeakSet[requests.Response] = WeakSet()
        self._cut = False

    def request(self, method: str, url: str, **settings: Any) -> requests.Response:
        """Every request of the SDK comes by here. It asks for no limit where it streams."""
        if settings.get("timeout") is None:
            settings["timeout"] = _SILENCE
        response = super().request(method, url, **settings)
        if settings.get("stream"):
            self._streams.add(response)
            if self._cut:  # meanwhile
                _end(response)
        return response

    def wait_streamed(self, container: str) -> None:
        """Return when the container has ended, or the engine thinks better of it."""
        url = f"{self.base_url}/v{self.api_version}/containers/{container}/wait"
        with self.post(url, stream=True, timeout=(ANSWER, None)) as response:
            try:
                response.raise_for_status()
            except requests.HTTPError as error:
                create_api_error_from_http_exception(error)  # it raises
            _ = response.content

    def cut(self) -> None:
        """End all streams, in whichever thread they are read."""
        self._cut = True
        for response in tuple(self._streams):
            _end(response)
        self.close()


def _end(response: requests.Response) -> None:
    with contextlib.suppress(AttributeError, OSError):  # it has just ended by itself
        CancellableStream(iter(()), response).close()
