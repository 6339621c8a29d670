"""What a client called us by."""

from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

from protocol.errors import Invalid


def own_url(request: HTTPServerRequest) -> str:
    """Scheme and host as the client said them: by its Host header, or the proxy's before it. Raises
    Invalid.
    """
    headers = request.headers
    scheme = headers.get("X-Forwarded-Proto", request.protocol)
    host = headers.get("X-Forwarded-Host", request.host)
    try:
        parts = urlsplit(f"{scheme}://{host}")
        valid = scheme in ("http", "https") and parts.netloc == host and bool(parts.hostname)
        valid = valid and parts.username is None and parts.port != 0 and host.isascii()
    except ValueError:
        valid = False
    if not valid:
        raise Invalid("the Host header names no host", field="Host", expected="HOST or HOST:PORT")
    return f"{scheme}://{host}"
