"""Decides how the set-up scripts ask the engine something: one HTTP request by the standard library
alone, since neither the docker command line, curl nor .venv need to exist yet.

    python3 setup/engine_request.py GET /_ping
    python3 setup/engine_request.py GET /containers/json?all=1 .Id
    python3 setup/engine_request.py GET /images/NAME/json Config Labels imagepool.recipe

Prints the body; with a `.KEY`, that value of every item of a list, a line each; with keys, the
value they lead to (nothing where there is none). Exits 0 on a 2xx, 3 on another status, 4 where
nothing answers. DOCKER_HOST (unix:// or tcp://), DOCKER_TLS_VERIFY and DOCKER_CERT_PATH mean what
they mean to Docker's own tools.
"""

import http.client
import json
import os
import socket
import ssl
import sys
from urllib.parse import urlsplit

SECONDS = 10


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=SECONDS)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def connection(host):
    """The connection that a DOCKER_HOST names."""
    url = urlsplit(host)
    if url.scheme == "unix":
        return UnixConnection(host[len("unix://") :])
    if url.scheme not in ("tcp", "http", "https"):
        raise OSError(f"DOCKER_HOST={host}: only unix:// and tcp:// are understood")
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        return http.client.HTTPConnection(url.hostname, url.port or 2375, timeout=SECONDS)
    folder = os.environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
    context = ssl.create_default_context(cafile=os.path.join(folder, "ca.pem"))
    context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
    return http.client.HTTPSConnection(
        url.hostname, url.port or 2376, timeout=SECONDS, context=context
    )


def main(method, path, *keys):
    try:
        engine = connection(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
        engine.request(method, path)
        reply = engine.getresponse()
        body = reply.read()
    except (OSError, http.client.HTTPException) as error:
        print(error, file=sys.stderr)
        return 4
    if not 200 <= reply.status < 300:
        sys.stderr.buffer.write(body)
        return 3
    if not keys:
        sys.stdout.buffer.write(body)
    elif keys[0].startswith("."):
        for item in json.loads(body):
            print(item[keys[0][1:]])
    else:
        value = json.loads(body)
        for key in keys:
            value = (value or {}).get(key)
        if value is not None:
            print(value)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
