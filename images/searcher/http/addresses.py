"""Addresses of clients and of this server, as a socket gives them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """The IP address, or None. A socket for IPv4 and IPv6 gives `::ffff:127.0.0.1` for an IPv4 address (RFC 4291,
    2.5.5.2): then the IPv4 address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
