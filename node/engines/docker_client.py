"""The SDK's client, with a time limit on every request but one, and a way to cut all of them."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakSet

import docker
import requests
from docker.errors import create_api_error_from_http_exception
from docker.types import CancellableStream
from docker.utils import convert_filters

ANSWER = 60.0
"""Seconds that the engine may take over an answer."""
_SILENCE = 300.0  # seconds between two signs of life of a pull
_SKEW = 1.0  # seconds that the engine's clock may be behind ours
STOP_SIGNAL = 15
"""What an engine that is stopped sends to its containers, and we never do."""


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
                end(response)
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

    def ended_unasked(self, container: str) -> bool:
        """Whether this engine saw a container end that it had not asked to.

        It remembers the last 256 events, of its present life only.
        """
        wanted = {"container": [container], "event": ["kill", "die"]}
        until = f"{time.time() + _SKEW:.6f}"
        query = {"since": "0", "until": until, "filters": convert_filters(wanted)}
        asked = False
        with self.get(self._url("/events"), params=query, stream=True) as response:
            self._raise_for_status(response)
            for line in response.iter_lines():
                event = json.loads(line)
                if event["Action"] == "die":
                    return not asked
                asked = asked or event["Actor"]["Attributes"].get("signal") == str(STOP_SIGNAL)
        return False

    def written(self, container: str) -> tuple[int, tuple[Path, ...]]:
        """Bytes in its writable layer, which the engine counts file by file; and where its volumes
        are, which it does not count: an image may ask for some.
        """
        url = self._url("/containers/{0}/json", container)
        said = self._result(self._get(url, params={"size": 1}), json=True)
        mounts = said.get("Mounts") or ()
        volumes = [Path(mount["Source"]) for mount in mounts if mount.get("Type") == "volume"]
        return max(0, said.get("SizeRw") or 0), tuple(volumes)

    def stats_once(self, container: str) -> Any:
        """What the engine's figures of it are now; without `one-shot` it waits for two of them."""
        url = self._url("/containers/{0}/stats", container)
        query = {"stream": "0", "one-shot": "1"}
        return self._result(self._get(url, params=query), json=True)

    def sent(self, path: str, body: Iterator[bytes], query: dict[str, Any]) -> requests.Response:
        """POST an archive, however long the engine works on it; what it says is streamed."""
        headers = {"Content-Type": "application/x-tar"}
        if path == "/build":
            self._set_auth_headers(headers)
        response = self.post(
            f"{self.base_url}/v{self.api_version}{path}",
            data=body,
            params=query,
            headers=headers,
            stream=True,
            timeout=(ANSWER, None),
        )
        self._raise_for_status(response)
        return response

    def given(self, path: str) -> requests.Response:
        """GET an archive, however long the engine takes to make it."""
        url = f"{self.base_url}/v{self.api_version}{path}"
        response = self.get(url, stream=True, timeout=(ANSWER, None))
        self._raise_for_status(response)
        return response

    def events(self, response: requests.Response) -> Iterator[dict[str, Any]]:
        """What the engine says there, one thing after another."""
        events: Iterator[dict[str, Any]] = self._stream_helper(response, decode=True)
        return events

    def cut(self) -> None:
        """End all streams, in whichever thread they are read."""
        self._cut = True
        for response in tuple(self._streams):
            end(response)
        self.close()


def end(response: requests.Response) -> None:
    """End a stream, in whichever thread it is read."""
    with contextlib.suppress(AttributeError, OSError):  # it has just ended by itself
        CancellableStream(iter(()), response).close()
