"""A network of the node's own on the Docker Engine: a bridge whose containers do not see each
other.

What they reach beyond it is not the engine's to say, but the firewall's (`node/network/`).
"""

from collections.abc import Mapping
from typing import Any

from docker.errors import APIError, NotFound

from node.engines.docker_connection import Connection
from node.engines.errors import EngineError

_NAME = "com.docker.network.bridge.name"
_ICC = "com.docker.network.bridge.enable_icc"
_MTU = "com.docker.network.driver.mtu"


class NetworkRefused(EngineError):
    """The engine would not make the network, or has another of that name."""


def provided(connection: Connection, name: str, interface: str, labels: Mapping[str, str]) -> None:
    """See `Engine.provide_network`."""
    with connection.asking(NetworkRefused, conflict=NetworkRefused) as client:
        try:
            found = client.inspect_network(name)
        except NotFound:
            options = {_NAME: interface, _ICC: "false", **_mtu(client)}
            client.create_network(name, "bridge", options, labels=dict(labels), enable_ipv6=False)
            return
    if problem := _problem(found, interface, labels):
        raise NetworkRefused(
            f"the engine has a network {name} that {problem}: remove it, docker network rm {name}"
        )


def removed(connection: Connection, name: str) -> bool:
    """See `Engine.remove_network`."""
    with connection.asking() as client:
        try:
            client.remove_network(name)
        except NotFound:
            return True
        except APIError as error:
            if error.status_code == 403:
                return False
            raise
    return True


def _problem(found: Any, interface: str, labels: Mapping[str, str]) -> str:
    """What a network lacks; empty where it is as we make them."""
    options = found["Options"] or {}
    if found["Driver"] != "bridge" or options.get(_NAME) != interface:
        return f"is no bridge called {interface}"
    if options.get(_ICC) != "false":
        return "lets containers speak to each other"
    if found["EnableIPv6"]:
        return "has IPv6"
    if not labels.items() <= (found["Labels"] or {}).items():
        return "is not of this node"
    return ""


def _mtu(client: Any) -> dict[str, str]:
    """That of the default bridge: the daemon's own setting is for that one only."""
    try:
        options = client.inspect_network("bridge")["Options"] or {}
    except NotFound:
        return {}
    return {_MTU: options[_MTU]} if _MTU in options else {}
