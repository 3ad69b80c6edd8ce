"""Which IP addresses are public: for programs whose users choose the URLs."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, TypeAlias

from .._core import callbacks
from .._core.errors import DeliveryError

IPAddress: TypeAlias = IPv4Address | IPv6Address
Allow: TypeAlias = Callable[[IPAddress], object]

# IPv6 networks whose addresses contain an IPv4 address, at which packets end up, and the number
# of bits that follow it.
_CARRIERS = (
    (IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # IPv4-translated
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("2002::/16"), 80),  # 6to4
)

# From IANA's registries of special-purpose addresses, as is_global differs between versions of
# Python. It cannot be known from outside where a network's own NAT64 (64:ff9b:1::/48) or a Teredo
# server sends a packet.
_NOT_PUBLIC = tuple(
    IPv6Network(network)
    for network in (
        "::/8",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/9",
        "ff00::/8",
    )
)
_NOT_PUBLIC_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
)


def is_public(address: IPAddress) -> bool:
    """Whether an address is reachable from anywhere: not one of a private, local or
    special-purpose network, nor carrying one that is (IPv4-mapped, NAT64, 6to4)."""
    address = carried(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address.is_global and not any(address in network for network in _NOT_PUBLIC)


def carried(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 one carries, at which its packets end up; or itself."""
    if isinstance(address, IPv6Address):
        for network, shift in _CARRIERS:
            if address in network:
                return IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    return address


def choose(allow: Allow, host: str, found: list[Any]) -> list[Any]:
    """The results of getaddrinfo that ``allow`` accepts.

    Raises DeliveryError, a permanent one if there is none: a retry would find the same
    addresses.
    """
    chosen = [info for info in found if callbacks.allow(allow, _address(info[4][0]))]
    if found and not chosen:
        raise DeliveryError(f"{host} is at an address that is not allowed", permanent=True)
    return chosen


def _address(host: str) -> IPAddress:
    """The IP address in ``host``, which may have a scope."""
    return carried(ip_address(host.partition("%")[0]))
