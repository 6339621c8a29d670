"""The files that an ISO's installer, or the system on it, reads: `ks_scripts/*.cfg`."""

import ipaddress
import re
from collections.abc import Iterable

from passlib.hash import md5_crypt

from protocol.api.traffic_ops.wanted import Wanted

PASSWORD = "password.cfg"
"""The file that has the root password's hash."""

_BOND = re.compile(r"bond\d+")
_BONDING = "miimon=100 mode=4 lacp_rate=fast xmit_hash_policy=layer3+4"


def network(wanted: Wanted, name_servers: Iterable[str]) -> str:
    """`network.cfg`."""
    bond = _BOND.match(wanted.interface) is not None
    options = {
        "IPADDR": wanted.address,
        "NETMASK": wanted.netmask,
        "GATEWAY": wanted.gateway,
        "BOND_DEVICE" if bond else "DEVICE": wanted.interface,
        "MTU": str(wanted.mtu),
        "NAMESERVER": ",".join(name_servers),
        "HOSTNAME": wanted.fqdn,
        "NETWORKING_IPV6": "yes",
        "IPV6ADDR": wanted.address6,
        "IPV6_DEFAULTGW": wanted.gateway6,
    }
    if bond:
        options["BONDING_OPTS"] = _BONDING
    options["DHCP"] = "yes" if wanted.dhcp else "no"
    return _text(options)


def management(wanted: Wanted) -> str:
    """`mgmt_network.cfg`, also where there is no such network."""
    options = {
        "IPV6ADDR" if ":" in wanted.mgmt_address else "IPADDR": wanted.mgmt_address,
        "NETMASK": wanted.mgmt_netmask,
        "GATEWAY": wanted.mgmt_gateway,
        "DEVICE": wanted.mgmt_interface,
    }
    return _text(options)


def disk(wanted: Wanted) -> str:
    """`disk.cfg`."""
    return _text({"boot_drives": wanted.disk})


def password(hashed: str) -> str:
    """`password.cfg`."""
    return f"rootpw --iscrypted {hashed}\n"


def hashed(text: str, salt: str | None = None) -> str:
    """A password as kickstart has it: by MD5, with a salt of its own unless one is given."""
    hasher = md5_crypt.using(salt=salt) if salt is not None else md5_crypt
    made: str = hasher.hash(text)
    return made


def name_servers(resolv_conf: str) -> tuple[str, ...]:
    """The addresses in a `resolv.conf`, in its order; what is none that another machine can ask is
    passed over.
    """
    found = []
    for line in resolv_conf.splitlines():
        words = re.split(r"[#;]", line)[0].split()
        if len(words) > 1 and words[0] == "nameserver" and _is_address(words[1]):
            found.append(words[1])
    return tuple(found)


def _is_address(text: str) -> bool:
    try:
        return not ipaddress.ip_address(text).is_loopback and "%" not in text
    except ValueError:
        return False


def _text(options: dict[str, str]) -> str:
    """Lines for a shell to read. No value has a character that a shell would take for more than
    itself: `read` lets none pass.
    """
    return "\n".join(f'{name}="{value}"' for name, value in options.items())
