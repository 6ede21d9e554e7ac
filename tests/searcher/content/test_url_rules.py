"""Which addresses the searcher may connect to."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from searcher.content.url_rules import is_allowed


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "192.0.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"],
)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_allowed(ip_address(address), False)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "10.255.255.254",
        "172.16.0.1",
        "172.31.255.254",
        "192.168.0.1",
        "192.168.255.254",
        "fc12::1",
        "fd12::1",
        "64:ff9b::10.0.0.1",
        "8.8.8.8",
    ],
)
def test_a_host_that_the_allow_list_names_may_be_private(address: str) -> None:
    assert is_allowed(ip_address(address), True)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "fe80::1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:42::42",
        "224.0.0.1",
        "240.0.0.1",
    ],
)
def test_a_host_that_the_allow_list_names_may_be_nothing_else(address: str) -> None:
    assert not is_allowed(ip_address(address), True)
