"""The mDNS record by which programs of a pool find each other: its text, no sockets.

A record is a hint, from anybody on the LAN; what a program is, it says itself over HTTP (`GET
/status`).
"""

import ipaddress
import re

from msgspec import Struct

from protocol.model.messages import API_VERSION

SERVICE_TYPE = "_imagepool._tcp.local."
_PLAIN = re.compile(r"[ -~]{0,200}")
_ROLES = ("node", "scheduler", "scheduler+node")


class Beacon(Struct, frozen=True):
    """What a program advertises."""

    id: str
    boot: str
    pool: str
    role: str  # "node" or "scheduler"
    port: int
    addresses: tuple[str, ...]  # IPv4 and IPv6, as text
    api: int = API_VERSION
    name: str = ""
    pool_port: int = 0  # where it serves members of its pool by TLS; 0: nowhere
    pool_id: str = ""  # the pool that it is a member of


def instance_name(beacon: Beacon) -> str:
    """The instance's full name: unique by the program's id."""
    return f"imagepool-{beacon.id[:16]}.{SERVICE_TYPE}"


def host_name(beacon: Beacon) -> str:
    """The host name that the record's address entries go by."""
    return f"imagepool-{beacon.id[:16]}.local."


def properties(beacon: Beacon) -> dict[str, str]:
    """The TXT entries (RFC 6763): `txtvers` first."""
    return {
        "txtvers": "1",
        "id": beacon.id,
        "boot": beacon.boot,
        "pool": beacon.pool,
        "role": beacon.role,
        "api": str(beacon.api),
        "name": beacon.name,
        **({"tls": str(beacon.pool_port), "of": beacon.pool_id} if beacon.pool_port else {}),
    }


def read(
    text: dict[bytes, bytes | None], port: int | None, addresses: tuple[str, ...]
) -> Beacon | None:
    """The beacon in a record that somebody sent; None where it is not one of ours or makes no
    sense.
    """
    values = {key: (value or b"").decode("ascii", "replace") for key, value in text.items()}
    get = {key.decode("ascii", "replace"): value for key, value in values.items()}.get
    identity, boot, role, api = get("id", ""), get("boot", ""), get("role", ""), get("api", "")
    plain = all(_PLAIN.fullmatch(value) for value in values.values())
    if not plain or not identity.isalnum() or role not in _ROLES or not api.isdigit():
        return None
    if not port or not 0 < port < 65536 or not addresses or len(api) > 4:
        return None
    tls = get("tls", "0")
    pool_port = int(tls) if tls.isdigit() and len(tls) < 6 else 0
    if pool_port > 65535 or not re.fullmatch("[0-9a-f]{0,16}", get("of", "")):
        return None
    return Beacon(
        id=identity,
        boot=boot,
        pool=get("pool", ""),
        role=role,
        port=port,
        addresses=addresses[:16],
        api=int(api),
        name=get("name", ""),
        pool_port=pool_port,
        pool_id=get("of", "") if pool_port else "",
    )


def urls(beacon: Beacon, *, member: bool) -> tuple[str, ...]:
    """Where a program that advertises itself may be reached, IPv4 first; a member of a pool where
    it proves that it is one.
    """
    hosts = sorted(beacon.addresses, key=lambda address: ":" in address)
    scheme, port = ("https", beacon.pool_port) if member else ("http", beacon.port)
    return tuple(
        f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        for host in hosts
        if _is_host(host)
    )


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
