"""What a request for an ISO asks for, and everything that is wrong with it, in the family's words.

Where the document, the original's code and what was asked of it disagree, docs/traffic-ops.md says
what holds.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from msgspec import Struct

from protocol.api.traffic_ops.settings import file_part

A = TypeVar("A", ipaddress.IPv4Address, ipaddress.IPv6Address)

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:[.]{_LABEL})*")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_DISK = "[A-Za-z0-9][A-Za-z0-9_.:+-]*(?:/[A-Za-z0-9][A-Za-z0-9_.:+-]*)*"
_DISK_WORDS = (
    "a block device's name without /dev/ before it: letters, digits and . _ : + -, / between parts,"
    " commas between several, up to 64 characters in all"
)
_DISKS = re.compile(rf"(?=.{{1,64}}\Z){_DISK}(?:,{_DISK})*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_YES = {"yes", "true", "1"}
_NO = {"no", "false", "0"}
_MTU = (576, 9216)  # bytes
_PASSWORD = 256  # characters
_FQDN = 180  # characters, so that a file can be called by it


class Wanted(Struct, frozen=True):
    """An ISO, and what the machine is told that boots it."""

    directory: str
    host: str
    domain: str
    password: str
    dhcp: bool
    mtu: int
    stream: bool = False
    interface: str = ""
    disk: str = ""
    address: str = ""
    netmask: str = ""
    gateway: str = ""
    address6: str = ""  # with or without /PREFIX
    gateway6: str = ""
    mgmt_address: str = ""
    mgmt_netmask: str = ""
    mgmt_gateway: str = ""
    mgmt_interface: str = ""

    @property
    def fqdn(self) -> str:
        """Host and domain."""
        return f"{self.host}.{self.domain}"

    @property
    def iso(self) -> str:
        """The name of its file."""
        return f"{self.fqdn}-{file_part(self.directory)}.iso"


def read(given: Mapping[str, Any], directories: Mapping[str, Any]) -> Wanted | tuple[str, ...]:
    """What a request asks for, or all that is wrong with it, a sentence for each. `directories`:
    those of the OS versions that there are.
    """
    reader = _Reader(given)
    wanted = reader.wanted(directories)
    return tuple(reader.problems) or wanted


class _Reader:
    """Reads one value after the other, and remembers what is wrong."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.problems: list[str] = []
        self._given = given

    def wanted(self, directories: Mapping[str, Any]) -> Wanted:
        """What is asked for; worthless where there are problems."""
        directory = self._text("osversionDir")
        if directory and directory not in directories:
            self.problems.append(f"invalid OS version directory: {_quoted(directory)}")
        host, domain = self._name("hostName"), self._name("domainName")
        if len(f"{host}.{domain}") > _FQDN:
            self.problems.append(f"hostName and domainName are over {_FQDN} characters together")
        password = self._password()
        dhcp, mtu = self._truth("dhcp"), self._mtu()
        management = self._management()
        network = self._network() if dhcp is False else {}
        return Wanted(
            directory,
            host,
            domain,
            password,
            bool(dhcp),
            mtu,
            stream=bool(self._truth("stream", required=False)),
            interface=self._interface("interfaceName"),
            disk=self._fitting("disk", _DISKS, _DISK_WORDS),
            **network,
            **management,
        )

    def _network(self) -> dict[str, str]:
        """What counts without DHCP, and only then."""
        required = {"ipAddress": self._v4, "ipNetmask": self._netmask, "ipGateway": self._v4}
        for name in required:
            if not self._is_given(name):
                self.problems.append(f"{name} is required if DHCP is no")
        address, netmask, gateway = (read(name) for name, read in required.items())
        return {
            "address": address,
            "netmask": netmask,
            "gateway": gateway,
            "address6": self._address6("ip6Address"),
            "gateway6": self._gateway6("ip6Gateway"),
        }

    def _management(self) -> dict[str, str]:
        found = {
            "mgmt_address": self._either("mgmtIpAddress"),
            "mgmt_netmask": self._netmask("mgmtIpNetmask"),
            "mgmt_gateway": self._either("mgmtIpGateway"),
            "mgmt_interface": self._interface("mgmtInterface"),
        }
        for name, needed in (
            ("mgmtIpAddress", "mgmtInterface"),
            ("mgmtIpAddress", "mgmtIpGateway"),
            ("mgmtIpGateway", "mgmtInterface"),
        ):
            text = f"{needed} is required when {name} is provided"
            missing = self._is_given(name) and not self._is_given(needed)
            if missing and not any(said.startswith(needed) for said in self.problems):
                self.problems.append(text)
        return found

    # One value

    def _is_given(self, name: str) -> bool:
        return self._given.get(name) not in (None, "")

    def _text(self, name: str, *, required: bool = True) -> str:
        if not self._is_given(name):
            if required:
                self.problems.append(f"{name} is required")
            return ""
        value = self._given[name]
        if isinstance(value, str):
            return value
        self._wrong(name, "a string")
        return ""

    def _fitting(self, name: str, pattern: re.Pattern[str], expected: str) -> str:
        text = self._text(name, required=False)
        if text and not pattern.fullmatch(text):
            self._wrong(name, expected)
        return text

    def _interface(self, name: str) -> str:
        words = "a network interface's name: letters, digits and . _ -, up to 15 of them"
        return self._fitting(name, _INTERFACE, words)

    def _name(self, name: str) -> str:
        text = self._text(name)
        if text and not _NAME.fullmatch(text):
            self._wrong(name, "letters, digits and -, parts of up to 63 with . between them")
        return text

    def _password(self) -> str:
        text = self._text("rootPass")
        if len(text) > _PASSWORD or _CONTROL.search(text):
            self._wrong("rootPass", f"up to {_PASSWORD} characters, none of them control ones")
        return text

    def _truth(self, name: str, *, required: bool = True) -> bool | None:
        if not self._is_given(name):
            if required:
                self.problems.append(f"{name} is required")
            return None
        value = self._given[name]
        word = str(value).lower() if isinstance(value, str | bool | int) else ""
        if word in _YES | _NO:
            return word in _YES
        self._wrong(name, "yes or no")
        return None

    def _mtu(self) -> int:
        value = self._given.get("interfaceMtu")
        if value in (None, "", 0, "0"):
            self.problems.append("interfaceMtu is required")
            return 0
        digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 8
        number = int(value) if digits else value
        low, high = _MTU
        if not isinstance(number, int) or number is True or not low <= number <= high:
            self._wrong("interfaceMtu", f"a whole number from {low} to {high}")
            return 0
        return number

    def _v4(self, name: str) -> str:
        return self._parsed(name, _v4, "a machine's IPv4 address")

    def _netmask(self, name: str) -> str:
        return self._parsed(name, _netmask, "an IPv4 netmask")

    def _either(self, name: str) -> str:
        return self._parsed(name, _address, "a machine's IP address")

    def _address6(self, name: str) -> str:
        return self._parsed(name, _interface6, "a machine's IPv6 address, with or without /PREFIX")

    def _gateway6(self, name: str) -> str:
        return self._parsed(name, _address6, "a machine's IPv6 address")

    def _parsed(self, name: str, parse: Callable[[str], object], expected: str) -> str:
        text = self._text(name, required=False)
        try:
            return str(parse(text)) if text else ""
        except ValueError:
            self._wrong(name, expected)
            return ""

    def _wrong(self, name: str, expected: str) -> None:
        self.problems.append(f"{name} is not valid: expected {expected}")


def _netmask(text: str) -> str:
    """Raises ValueError where it is no row of ones and then of zeros."""
    if str(ipaddress.IPv4Network(f"0.0.0.0/{text}").netmask) != text:
        raise ValueError(text)
    return text


def _v4(text: str) -> ipaddress.IPv4Address:
    return _of_a_machine(ipaddress.IPv4Address(text))


def _address6(text: str) -> ipaddress.IPv6Address:
    """Raises ValueError also for one that is good on one link of one machine only, and for one of
    IPv4 in disguise.
    """
    address = ipaddress.IPv6Address(text)
    if "%" in text or address.ipv4_mapped:
        raise ValueError(text)
    return _of_a_machine(address)


def _of_a_machine(address: A) -> A:
    """Raises ValueError for one that no machine has for others to reach it."""
    if (
        address.is_unspecified
        or address.is_multicast
        or address.is_loopback
        or address == ipaddress.IPv4Address("255.255.255.255")
    ):
        raise ValueError(str(address))
    return address


def _interface6(text: str) -> str:
    """As it was given: with a prefix or without."""
    _address6(_without_prefix(text, 128))
    return text


def _address(text: str) -> str:
    """Of either family. A prefix is dropped: the file has no place for it."""
    if ":" in text:
        return str(_address6(_without_prefix(text, 128)))
    return str(_v4(_without_prefix(text, 32)))


def _without_prefix(text: str, most: int) -> str:
    """ADDRESS of ADDRESS/PREFIX. Raises ValueError."""
    address, slash, prefix = text.partition("/")
    if slash and not (prefix.isascii() and prefix.isdigit() and int(prefix) <= most):
        raise ValueError(text)
    return address


def _quoted(text: str) -> str:
    return json.dumps(text[:80])
