"""What the live system of an installer ISO makes of the ISO's settings: `apply`, on a tree of its
own. That machines boot so is in tests/system/test_isos.py.
"""

import os
import subprocess
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parents[1] / "config/installer-image/system/usr/lib/imagepool"
NETWORK = """IPADDR="10.0.2.50"
NETMASK="255.255.252.0"
GATEWAY="10.0.2.2"
DEVICE="eth0"
MTU="1450"
NAMESERVER="10.0.2.3,fd00:50::3"
HOSTNAME="edge01.cdn.example"
NETWORKING_IPV6="yes"
IPV6ADDR="fd00:50::10"
IPV6_DEFAULTGW="fd00:50::1"
DHCP="no\""""
DYNAMIC = NETWORK.replace('"10.0.2.50"', '""').replace('DHCP="no"', 'DHCP="yes"')
MANAGEMENT = 'IPADDR="10.9.0.2"\nNETMASK="255.255.255.0"\nGATEWAY="10.9.0.1"\nDEVICE="eth1"'
NONE = 'IPADDR=""\nNETMASK=""\nGATEWAY=""\nDEVICE=""'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree, as the image has it."""
    networks = tmp_path / "root/etc/systemd/network"
    networks.mkdir(parents=True)
    (networks / "80-dhcp.network").write_text("[Match]\nName=*\n")
    return tmp_path / "root"


def apply(root: Path, network: str = NETWORK, management: str = NONE) -> dict[str, list[str]]:
    """The lines of each network file afterwards, without the empty ones."""
    place = root.parent
    cfg, programs = place / "cfg", place / "bin"
    cfg.mkdir()
    programs.mkdir()
    (cfg / "network.cfg").write_text(network)
    (cfg / "mgmt_network.cfg").write_text(management)
    (cfg / "password.cfg").write_text("rootpw --iscrypted $1$salt$hash\n")
    (programs / "chpasswd").write_text(f'#!/bin/sh\necho "$@" >{place}/said\ncat >>{place}/said\n')
    (programs / "chpasswd").chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "cfg": str(cfg)}
    subprocess.run(["sh", PROGRAMS / "apply", root], env=environment, check=True)
    assert (place / "said").read_text() == f"-e -R {root}\nroot:$1$salt$hash\n"
    files = (root / "etc/systemd/network").iterdir()
    return {file.name: list(filter(None, file.read_text().split("\n"))) for file in files}


def test_fixed_addresses(root: Path) -> None:
    """With the prefix of the netmask, and one that is usual where none is given."""
    assert apply(root) == {
        "20-machine.network": [
            "[Match]",
            "Name=eth0",
            "[Network]",
            "LinkLocalAddressing=ipv6",
            "IPv6AcceptRA=no",
            "Address=10.0.2.50/22",
            "Address=fd00:50::10/64",
            "[Route]",
            "Gateway=10.0.2.2",
            "GatewayOnLink=yes",
            "[Route]",
            "Gateway=fd00:50::1",
            "GatewayOnLink=yes",
            "[Link]",
            "MTUBytes=1450",
        ]
    }
    assert (root / "etc/hostname").read_text() == "edge01.cdn.example\n"
    assert "127.0.1.1 edge01.cdn.example edge01\n" in (root / "etc/hosts").read_text()
    servers = (root / "etc/systemd/resolved.conf.d/10-iso.conf").read_text()
    assert servers == "[Resolve]\nDNS=10.0.2.3 fd00:50::3\n"


@pytest.mark.parametrize(
    ("text", "device", "name"),
    [(NETWORK, "", "eth0"), (DYNAMIC, "", "en* eth*"), (DYNAMIC, "eth2", "eth2")],
)
def test_which_interface(root: Path, text: str, device: str, name: str) -> None:
    """An address is for one; whichever has a DHCP server will do."""
    files = apply(root, text.replace('DEVICE="eth0"', f'DEVICE="{device}"'))
    assert files["20-machine.network"][1] == f"Name={name}"
    assert ("DHCP=yes" in files["20-machine.network"]) == (text == DYNAMIC)


def test_a_bond(root: Path) -> None:
    """Of all wired interfaces but that of the management network, which is found first."""
    bond = NETWORK.replace("DEVICE=", "BOND_DEVICE=").replace('"eth0"', '"bond1"')
    bond += '\nBONDING_OPTS="miimon=100 mode=4 lacp_rate=fast xmit_hash_policy=layer3+4"'
    files = apply(root, bond, MANAGEMENT)
    assert sorted(files) == [
        "10-management.network",
        "20-bond.netdev",
        "20-bond.network",
        "30-links.network",
    ]
    assert files["20-bond.netdev"][5:] == [
        "MIIMonitorSec=100ms",
        "Mode=802.3ad",
        "LACPTransmitRate=fast",
        "TransmitHashPolicy=layer3+4",
    ]
    assert "Address=10.0.2.50/22" in files["20-bond.network"]
    assert "Bond=bond1" in files["30-links.network"]


def test_a_management_network(root: Path) -> None:
    """On an interface of its own; its gateway is the worse one."""
    files = apply(root, management=MANAGEMENT)
    assert files["10-management.network"] == [
        "[Match]",
        "Name=eth1",
        "[Network]",
        "LinkLocalAddressing=ipv6",
        "IPv6AcceptRA=yes",
        "Address=10.9.0.2/24",
        "[Route]",
        "Gateway=10.9.0.1",
        "GatewayOnLink=yes",
        "Metric=2048",
    ]
    assert "Address=10.0.2.50/22" in files["20-machine.network"]


def test_both_networks_on_one_interface(root: Path) -> None:
    """It has the addresses of both."""
    (lines,) = apply(root, management=MANAGEMENT.replace("eth1", "eth0")).values()
    assert [line for line in lines if line.startswith("Name=")] == ["Name=eth0"]
    assert {"Address=10.9.0.2/24", "Address=10.0.2.50/22", "Gateway=10.0.2.2"} <= {*lines}


def test_a_name_that_linux_does_not_know(root: Path) -> None:
    """Over 64 characters: the machine is called by its first part."""
    long = f"edge01.{'cdn' * 20}.example"
    apply(root, NETWORK.replace("edge01.cdn.example", long))
    assert (root / "etc/hostname").read_text() == "edge01\n"
    assert f"127.0.1.1 {long} edge01\n" in (root / "etc/hosts").read_text()
