"""`ks_scripts/*.cfg`, to the byte."""

import re
from typing import Any

import pytest
from msgspec.structs import replace

from protocol.api.traffic_ops import files, wanted
from protocol.api.traffic_ops.recipe import LABEL, to_order
from protocol.api.traffic_ops.settings import OsVersion, TrafficOpsSettings
from protocol.api.traffic_ops.wanted import Wanted
from protocol.model.recipe import ImageBase
from protocol.model.request import Needs, Order
from tests.traffic_ops import EXAMPLE

SERVERS = ("8.8.8.8", "1.1.1.1")
WANTED = Wanted(
    "centos72",
    "test",
    "quest",
    "twelve",
    dhcp=False,
    mtu=1500,
    interface="eth0",
    disk="hda",
    address="1.3.3.7",
    netmask="255.255.255.255",
    gateway="8.0.0.8",
    address6="1::3:3:7",
    gateway6="8::8",
)
"""The example of the family's document."""


def changed(**changes: Any) -> Wanted:
    """The example with these."""
    return replace(WANTED, **changes)


def test_the_network_of_the_documents_example() -> None:
    """In the original's order, without a newline at the end."""
    assert files.network(WANTED, SERVERS) == (
        'IPADDR="1.3.3.7"\n'
        'NETMASK="255.255.255.255"\n'
        'GATEWAY="8.0.0.8"\n'
        'DEVICE="eth0"\n'
        'MTU="1500"\n'
        'NAMESERVER="8.8.8.8,1.1.1.1"\n'
        'HOSTNAME="test.quest"\n'
        'NETWORKING_IPV6="yes"\n'
        'IPV6ADDR="1::3:3:7"\n'
        'IPV6_DEFAULTGW="8::8"\n'
        'DHCP="no"'
    )


@pytest.mark.parametrize("name", ["bond0", "bond01", "bond12"])
def test_a_bond(name: str) -> None:
    """Any number: its device is called otherwise, and has options before DHCP."""
    lines = files.network(changed(interface=name), SERVERS).splitlines()
    assert lines[3] == f'BOND_DEVICE="{name}"'
    assert lines[-2:] == [
        'BONDING_OPTS="miimon=100 mode=4 lacp_rate=fast xmit_hash_policy=layer3+4"',
        'DHCP="no"',
    ]


@pytest.mark.parametrize("name", ["bond", "abond0", "eth0", ""])
def test_no_bond(name: str) -> None:
    """What is not called like one."""
    text = files.network(changed(interface=name), SERVERS)
    assert f'\nDEVICE="{name}"\n' in text
    assert "BOND" not in text


def test_dhcp() -> None:
    """Nothing is said of addresses."""
    asked = Wanted("d", "a", "b", "p", dhcp=True, mtu=9000, interface="eth0")
    assert files.network(asked, ()) == (
        'IPADDR=""\nNETMASK=""\nGATEWAY=""\nDEVICE="eth0"\nMTU="9000"\nNAMESERVER=""\n'
        'HOSTNAME="a.b"\nNETWORKING_IPV6="yes"\nIPV6ADDR=""\nIPV6_DEFAULTGW=""\nDHCP="yes"'
    )


def test_management() -> None:
    """Written also where there is none; one of IPv6 is called so."""
    assert files.management(WANTED) == 'IPADDR=""\nNETMASK=""\nGATEWAY=""\nDEVICE=""'
    given = {"mgmt_netmask": "255.255.255.0", "mgmt_gateway": "10.0.0.1", "mgmt_interface": "eth1"}
    rest = 'NETMASK="255.255.255.0"\nGATEWAY="10.0.0.1"\nDEVICE="eth1"'
    asked = changed(mgmt_address="10.0.0.2", **given)
    assert files.management(asked) == f'IPADDR="10.0.0.2"\n{rest}'
    asked = changed(mgmt_address="beef::1", **given)
    assert files.management(asked) == f'IPV6ADDR="beef::1"\n{rest}'


def test_disk() -> None:
    """One, several, or none."""
    assert files.disk(WANTED) == 'boot_drives="hda"'
    assert files.disk(changed(disk="sda,sdb")) == 'boot_drives="sda,sdb"'
    assert files.disk(changed(disk="")) == 'boot_drives=""'


@pytest.mark.parametrize(
    ("text", "hashed"),
    [
        ("", "$1$salt$UsdFqFVB.FsuinRDK5eE.."),
        ("Traffic Ops", "$1$salt$17HeaymOIi.65dl76MkK01"),
    ],
)
def test_the_password(text: str, hashed: str) -> None:
    """The original's vectors."""
    assert files.hashed(text, "salt") == hashed
    assert files.password(hashed) == f"rootpw --iscrypted {hashed}\n"


def test_a_passwords_salt() -> None:
    """Of eight characters, another one each time."""
    first, second = files.hashed("twelve"), files.hashed("twelve")
    assert first != second
    assert len(first.split("$")[2]) == len(second.split("$")[2]) == 8


def test_name_servers() -> None:
    """In the file's order; comments, what is no address, and our own resolver are passed over."""
    text = (
        "# nameserver 9.9.9.9\nnameserver 8.8.8.8 # this\nsearch example.org\n"
        "nameserver example\nnameserver 1::1\nnameserver fe80::1%eth0\n nameserver 1.1.1.1;x\n"
        "nameserver\nnameserver 127.0.0.53\nnameserver ::1\n"
    )
    assert files.name_servers(text) == ("8.8.8.8", "1::1", "1.1.1.1")


REQUEST = {
    **EXAMPLE,
    "ipNetmask": "255.255.255.0",
    "ip6Address": "1::3:3:7/48",
}
NETWORK = """IPADDR="1.3.3.7"
NETMASK="255.255.255.0"
GATEWAY="8.0.0.8"
DEVICE="eth0"
MTU="1500"
NAMESERVER="9.9.9.9"
HOSTNAME="test.quest"
NETWORKING_IPV6="yes"
IPV6ADDR="1::3:3:7/48"
IPV6_DEFAULTGW="8::8"
DHCP="no\""""
NONE = 'IPADDR=""\nNETMASK=""\nGATEWAY=""\nDEVICE=""'
EMPTY = {"IPADDR": "", "NETMASK": "", "GATEWAY": "", "IPV6ADDR": "", "IPV6_DEFAULTGW": ""}


def order(**changes: Any) -> Order:
    """The build of a request."""
    own = TrafficOpsSettings(
        {"centos72": OsVersion("CentOS 7.2", ImageBase("os/centos72"), labels=("isos",))},
        keep=60,
        time_limit=90,
    )
    read = wanted.read({**REQUEST, **changes}, own.os_versions)
    assert isinstance(read, Wanted), read
    return to_order(read, own, ["9.9.9.9"])


def written(**changes: Any) -> dict[str, str]:
    """The files that a request leads to."""
    inputs = order(**changes).recipe.inputs
    return {one.name.removeprefix("ks_scripts/"): one.content.text for one in inputs}


def with_values(text: str, values: dict[str, str]) -> str:
    """The file, with these."""
    for name, value in values.items():
        text = re.sub(rf'^{name}=".*"$', f'{name}="{value}"', text, flags=re.MULTILINE)
    return text


@pytest.mark.parametrize(
    ("changes", "network", "management", "disk"),
    [
        ({}, {}, NONE, "hda"),
        ({"disk": None, "interfaceName": None}, {"DEVICE": ""}, NONE, ""),
        ({"dhcp": "YES"}, {**EMPTY, "DHCP": "yes"}, NONE, "hda"),
        ({"interfaceMtu": "9000", "disk": "sda,sdb"}, {"MTU": "9000"}, NONE, "sda,sdb"),
        (
            {
                "mgmtIpAddress": "10.0.0.2/24",
                "mgmtIpNetmask": "255.0.0.0",
                "mgmtIpGateway": "10.0.0.1",
                "mgmtInterface": "eth1",
            },
            {},
            'IPADDR="10.0.0.2"\nNETMASK="255.0.0.0"\nGATEWAY="10.0.0.1"\nDEVICE="eth1"',
            "hda",
        ),
    ],
)
def test_from_request_to_files(
    changes: dict[str, Any], network: dict[str, str], management: str, disk: str
) -> None:
    """Each value where it belongs, and nowhere else."""
    assert written(**changes) == {
        "network.cfg": with_values(NETWORK, network),
        "mgmt_network.cfg": management,
        "disk.cfg": f'boot_drives="{disk}"',
    }


def test_how_it_is_built() -> None:
    """Without a network, and within the operator's limits; a name for it where it is kept."""
    guidance = order().guidance
    assert guidance.needs == Needs(labels=("isos",), network=False, time_limit=90)
    assert guidance.keep == 60
    assert guidance.labels == {LABEL: "test.quest-centos72.iso"}
    assert not order(stream="yes").guidance.labels
