"""An image registry on loopback, where the engine asks for no TLS."""

import contextlib
import gzip
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Answer(Struct, frozen=True):
    """What a path is answered with."""

    body: bytes
    status: int = 200
    kind: str = "application/octet-stream"


UNKNOWN = Answer(b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}', 404)
DENIED = Answer(b'{"errors": [{"code": "DENIED", "message": "access denied"}]}', 403)
BROKEN = Answer(b"no", 503)


@contextlib.contextmanager
def a_registry(answers: Mapping[str, Answer]) -> Iterator[str]:
    """HOST:PORT of a registry; paths without an answer are unknown to it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            first = Answer(b"{}") if self.path == "/v2/" else UNKNOWN
            answer = answers.get(self.path, answers.get("*", first))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
            if answer.kind == _MANIFEST:
                self.send_header("Docker-Content-Digest", _digest(answer.body))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(answer.body)

        do_HEAD = do_GET

        def log_message(self, *words: Any) -> None:
            """Nothing: it is a test's."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def an_image(name: str, layer: bytes) -> dict[str, Answer]:
    """The answers that make an image of one layer, a tar archive, with the tag `latest`."""
    packed = gzip.compress(layer)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _described("application/vnd.docker.container.image.v1+json", config),
            "layers": [_described("application/vnd.docker.image.rootfs.diff.tar.gzip", packed)],
        }
    ).encode()
    shown = Answer(manifest, kind=_MANIFEST)
    return {
        f"/v2/{name}/manifests/latest": shown,
        f"/v2/{name}/manifests/{_digest(manifest)}": shown,
        f"/v2/{name}/blobs/{_digest(config)}": Answer(config),
        f"/v2/{name}/blobs/{_digest(packed)}": Answer(packed),
    }


def _described(kind: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "size": len(blob), "digest": _digest(blob)}


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()
