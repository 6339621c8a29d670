"""The request that the document of Traffic Ops shows, for the tests of its family."""

from typing import Any

EXAMPLE: dict[str, Any] = {
    "osversionDir": "centos72",
    "hostName": "test",
    "domainName": "quest",
    "rootPass": "twelve",
    "dhcp": "no",
    "interfaceMtu": 1500,
    "ipAddress": "1.3.3.7",
    "ipNetmask": "255.255.255.255",
    "ipGateway": "8.0.0.8",
    "ip6Address": "1::3:3:7",
    "ip6Gateway": "8::8",
    "interfaceName": "eth0",
    "disk": "hda",
    "stream": "no",
}
