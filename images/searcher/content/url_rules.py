"""Rules for the URLs that the searcher may fetch: schemes, hosts, ports and addresses. Pure: no I/O.

Anyone who may search can make this process send requests, and it runs inside a network that clients cannot reach. So a
URL is parsed once, its host is checked against the allow and deny lists, and each of its addresses must be public.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpx

from imgsearch.errors import UsageError
from imgsearch.settings import SearchSettings
from searcher.search.errors import Problem

Address = IPv4Address | IPv6Address

PORTS = {"http": 80, "https": 443}
DEFAULT_PORTS = frozenset(PORTS.values())

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")

_GLOBAL_UNICAST = ip_network("2000::/3")
_EMBEDDING_IPV4 = (ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96"))
"""The last 32 bits are an IPv4 address: IPv4-mapped (RFC 4291), and NAT64 (RFC 6052), by which a cluster that has
IPv6 only reaches every IPv4 host."""

_NOT_PUBLIC = tuple(
    map(
        ip_network,
        [
            "192.0.0.0/24",  # IETF protocols; contains Oracle's metadata service
            "192.88.99.0/24",  # relays of 6to4
            "168.63.129.16/32",  # Azure's metadata service, at an address that looks public
            "2002::/16",  # 6to4: contains an IPv4 address, and is reached through a tunnel
            "3fff::/20",  # documentation
        ],
    )
)
"""Networks that `ipaddress` of some Python 3.11 calls global, and that must not be fetched from."""

_PRIVATE = tuple(map(ip_network, ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]))
"""RFC 1918 and RFC 4193."""

_METADATA = frozenset(map(ip_address, ["fd00:ec2::254", "fd20:ce::254", "fd00:42::42"]))
"""Metadata services of AWS, Google and Scaleway among the private addresses: they hand out credentials. The others are
link-local (169.254.169.254), shared (100.100.100.200) or in `_NOT_PUBLIC`."""


class Reason(Enum):
    """Reasons why an image is not fetched, as the client reads them."""

    INVALID_URL = "invalid URL; copy it from the address bar of a browser"
    INVALID_HOST = "invalid host; write https://HOST/PATH, without a user name"
    DISABLED = "this searcher fetches no URLs: send the image as `image`"
    SCHEME = "the URL must begin with {schemes}"
    DENIED = "port {port} of host {host} is not allowed: send the image as `image`"
    ADDRESS = "host {host} has no allowed address: send the image as `image`"
    TIMEOUT = "the image did not arrive within {seconds:g} s: send it as `image`"
    CONNECTION = "connection failed, invalid certificate, or invalid response"
    REDIRECTS = "more than {limit} redirects; give the final URL"
    STATUS = "the server responded with status {status} instead of an image"
    COMPRESSED = "the server responded with a compressed body: send the image as `image`"
    TOO_LARGE = "the image is larger than {limit:,} bytes"


class FetchRefused(Problem):
    """An `image_url` that is not fetched, or whose fetch failed.

    The status is always 422: a proxy in front of the searcher would repeat a request that gets 502 or 504."""

    def __init__(self, reason: Reason, **values: object) -> None:
        problem = reason.value.format(**values)
        super().__init__(422, f"image_url: {problem}", errors=[{"field": "image_url", "problem": problem}])
        self.reason = reason


def without_embedding(address: Address) -> Address:
    """The IPv4 address inside an IPv6 address, or the address itself."""
    if any(address in network for network in _EMBEDDING_IPV4):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_allowed(address: Address, listed: bool) -> bool:
    """Whether the searcher may connect to this address. `listed`: the allow list has exactly this host, which allows
    private networks, and nothing else."""
    address = without_embedding(address)
    if listed and address not in _METADATA and any(address in network for network in _PRIVATE):
        return True
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_PUBLIC)


def host_of(url: httpx.URL) -> str:
    """The normalised host. Raises ValueError for a URL without a valid host, or with a user name."""
    host = url.raw_host.decode()
    if url.userinfo:
        raise ValueError("it has a user name")
    if ":" in host and "%" not in host:
        return str(IPv6Address(host))
    if not _NAME.fullmatch(host):
        raise ValueError("it has no valid host")
    return host


@dataclass(frozen=True)
class HostPattern:
    """An entry of the allow or the deny list: `host`, `*.host` or `address`, each with or without `:port`."""

    host: str
    port: int | None
    subdomains: bool
    """Matches every host that ends in `.host`, but not `host` itself."""

    @classmethod
    def parse(cls, text: str, setting: str) -> HostPattern:
        """Raises UsageError, with the name of the setting, for an invalid entry."""
        try:
            if set(text) & set("/?#"):
                raise ValueError("it is more than a host and a port")
            url = httpx.URL("//" + text.removeprefix("*."))
            host = host_of(url)
        except (httpx.InvalidURL, ValueError):
            raise UsageError(
                f"{setting}: invalid entry {text!r}; write hosts such as photos.example.com, *.example.com or "
                "photos.example.com:8443, separated by commas"
            ) from None
        return cls(host, url.port, text.startswith("*."))

    def matches(self, host: str) -> bool:
        return host.endswith(f".{self.host}") if self.subdomains else host == self.host


class UrlRules:
    """Decides which hosts and which of their addresses the searcher may connect to."""

    def __init__(self, limits: SearchSettings) -> None:
        """Raises UsageError for invalid settings."""
        self._schemes = _entries(limits.url_schemes)
        self._allow = [HostPattern.parse(entry, "IMGSEARCH_SEARCH_URL_ALLOW") for entry in _entries(limits.url_allow)]
        self._deny = [HostPattern.parse(entry, "IMGSEARCH_SEARCH_URL_DENY") for entry in _entries(limits.url_deny)]

    def parse(self, text: str, base: httpx.URL | None = None) -> httpx.URL:
        """The URL to fetch. Raises FetchRefused for one that is not allowed. `base`: the URL that redirected here."""
        try:
            url = base.join(text) if base else httpx.URL(text)
        except (httpx.InvalidURL, ValueError):
            raise FetchRefused(Reason.INVALID_URL) from None
        if not self._schemes:
            raise FetchRefused(Reason.DISABLED)
        if url.scheme not in self._schemes:
            raise FetchRefused(Reason.SCHEME, schemes=" or ".join(f"{scheme}://" for scheme in self._schemes))
        try:
            host = host_of(url)
        except ValueError:
            raise FetchRefused(Reason.INVALID_HOST) from None
        port = PORTS[url.scheme] if url.port is None else url.port
        allowed = bool(self._allow_entries(host, port)) if self._allow else port in DEFAULT_PORTS
        if not allowed or self._denies(host, port):
            raise FetchRefused(Reason.DENIED, port=port, host=host)
        return url

    def allows_exactly(self, host: str, port: int) -> bool:
        """Whether the allow list has exactly this host."""
        return any(not entry.subdomains for entry in self._allow_entries(host, port))

    def denies(self, address: Address, port: int) -> bool:
        """Whether the deny list has this address, whatever the host in the URL."""
        return self._denies(str(without_embedding(address)), port)

    def _allow_entries(self, host: str, port: int) -> list[HostPattern]:
        entries = [entry for entry in self._allow if entry.matches(host)]
        return [entry for entry in entries if port == entry.port or (entry.port is None and port in DEFAULT_PORTS)]

    def _denies(self, host: str, port: int) -> bool:
        return any(entry.matches(host) and entry.port in (None, port) for entry in self._deny)


def _entries(text: str) -> list[str]:
    return [entry.strip().lower() for entry in text.split(",") if entry.strip()]
