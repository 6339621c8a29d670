"""The mDNS record by which programs of a pool find each other: its text, no sockets.

A record is a hint, from anybody on the LAN; what a program is, it says itself over HTTP (`GET
/status`).
"""

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
    return Beacon(
        id=identity,
        boot=boot,
        pool=get("pool", ""),
        role=role,
        port=port,
        addresses=addresses[:16],
        api=int(api),
        name=get("name", ""),
    )
