"""The searcher's own settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from imgsearch.settings.fields import (
    NonNegativeFloat,
    NonNegativeInt,
    NonNegativeShare,
    Port,
    PositiveFloat,
    PositiveInt,
    setting,
)


def _normalized(schemes: Any) -> Any:
    """`https, HTTP` → `https,http`."""
    if not isinstance(schemes, str):
        return schemes
    return ",".join(scheme.strip().lower() for scheme in schemes.split(",") if scheme.strip())


Fetches = Annotated[int, Field(ge=1, le=16)]
Schemes = Annotated[Literal["", "https", "http", "https,http", "http,https"], BeforeValidator(_normalized)]


@dataclass(frozen=True)
class SearchSettings:
    """The search service and its limits."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: Port = setting(8000, "Port to listen on. 0: a free port.")
    max_body_bytes: PositiveInt = setting(20_000_000, "The largest request body, in bytes. A larger one gets 413.")
    max_pixels: PositiveInt = setting(50_000_000, "The most pixels of a query image. A larger one gets 422.")
    max_k: PositiveInt = setting(200, "The most results of one search.")
    max_offset: NonNegativeInt = setting(10_000, "The largest offset of a page.")
    max_text_chars: PositiveInt = setting(1_000, "The longest text query, in characters.")
    max_parts: PositiveInt = setting(16, "The most parts of one weighted query.")
    max_urls: PositiveInt = setting(
        64,
        "The most images that one request may name by `image_url`, in all its searches together: more get 422. Also "
        "the most that one client may have waiting or in use at a time, in each process: more get 429.",
    )
    cache_vectors: NonNegativeInt = setting(
        10_000, "Query vectors in the cache. The least recently used vector is evicted first."
    )
    batch_texts: PositiveInt = setting(32, "The most text queries in one call of the model.")
    batch_images: PositiveInt = setting(16, "The most image queries in one call of the model.")
    max_waiting: PositiveInt = setting(
        256,
        "The most queries that wait for the model or are in it, in each process. More get 429 with Retry-After. The "
        "texts or images of one `/v1/embed` are admitted together or refused together; an empty queue admits any "
        "number.",
    )
    checked_share: NonNegativeShare = setting(
        0.01,
        "Share of the searches that are answered exactly as well, in the background, to measure the recall of real "
        "queries (docs/search-quality.md). 0: none. Each process checks one search at a time, in at most 2 % of the "
        "time; in a large index, it checks fewer searches than this share.",
    )
    workers: PositiveInt | None = setting(
        None,
        "Processes that answer requests. They share the port and the CPUs. Each has its own models, cache and queue, "
        "so N processes need up to N times the memory. More than 1 need a Chroma server. None: one for every 4 CPUs "
        "of the container's CPU limit, at least 1; without a CPU limit or a Chroma server, 1.",
    )
    max_connections: PositiveInt | None = setting(
        None,
        "The most open connections of each process. At the limit, a new connection replaces the one that has been idle "
        "for the longest time; if none is idle, it gets 503. None: 1024, or fewer where the limit of open files "
        "(`ulimit -n`) is below 1152: 128 files are for other purposes.",
    )
    refresh_seconds: PositiveFloat = setting(2.0, "Seconds between two checks for newly published indexes.")
    allowed_hosts: str = setting(
        "",
        "Hosts that a request to a loopback address (127.0.0.1, ::1) may name, separated by commas: "
        "`photos.example.com`. `localhost` and the loopback addresses are always allowed. Without API keys, a request "
        "with another Host gets 421: otherwise a page of another site could point its name to this machine and read "
        "the images (DNS rebinding). Set it for a proxy on this machine, or in the same pod, that passes the client's "
        "Host on.",
    )
    trusted_proxies: str = setting(
        "",
        "Addresses and networks of reverse proxies, separated by commas: `10.1.2.3,10.2.0.0/16`. Only from them, the "
        "server uses the headers `X-Forwarded-For` (the client's address, for the rate limit), `X-Forwarded-Proto` and "
        "`X-Forwarded-Prefix`. List no other machines: everybody with a listed address can choose these values.",
    )
    root_path: str = setting(
        "",
        "The path below which a reverse proxy serves this server, such as `/photos`. The proxy may remove this path or "
        "keep it. Empty: the path in `X-Forwarded-Prefix` of a trusted proxy, or none.",
    )
    url_schemes: Schemes = setting("https", "Schemes of an `image_url`. Empty: no URL is fetched.")
    url_allow: str = setting(
        "",
        "The only hosts that an `image_url` may name, separated by commas: `photos.example.com`, or `*.example.com` "
        "for every host below it. Add `:port` if the port is neither 80 nor 443. Empty: every host with a public "
        "address, at these two ports. A host that is listed without `*` may also have a private address (RFC 1918, "
        "RFC 4193). A loopback, link-local or metadata address is always refused.",
    )
    url_deny: str = setting(
        "",
        "Hosts and addresses (IPv6 in brackets) that an `image_url` may not name or redirect to, written as in "
        "`url_allow`. `url_deny` takes precedence over `url_allow`.",
    )
    url_seconds: PositiveFloat = setting(
        10.0, "Timeout of an `image_url` with all its redirects and its time in the queue, in seconds."
    )
    url_fetches: Fetches = setting(
        4,
        "The most images of `image_url` that are fetched or in use at a time for one client, in each process. All "
        "clients together have 16. Raise it where one client, such as a web server of yours, searches for many users.",
    )
    linger_seconds: NonNegativeFloat = setting(
        0.0,
        "Seconds after SIGTERM in which the server accepts new requests. In this time /readyz returns 503, and "
        "each response closes its connection. Set the time that load balancers need to stop sending requests.",
    )
    drain_seconds: NonNegativeFloat = setting(
        20.0, "Seconds in which running requests may finish after `linger_seconds`."
    )
    api_keys: str | None = setting(
        None,
        "API keys, as `NAME:SHA256HEX`, one a line or separated by commas (docs/api-keys.md shows how to make one). "
        "Requests must send one of the keys as `Authorization: Bearer …`. Several keys are valid at a time, and two "
        "may have one name. Not set: no key is needed. Empty is an error.",
        secret=True,
    )
    rate_limit: str | None = setting(
        None,
        "Queries that one client may send to search and embed, such as `600/minute`. More get 429. Each search of a "
        "batch, each part of a weighted query, and each text or image of `/v1/embed` counts as one query. A request "
        "with more queries than the whole limit gets 422; a batch has up to 64 searches. A client is the name of an "
        "API key; without API keys it is an address (behind a proxy the proxy's address, unless "
        "`IMGSEARCH_SEARCH_TRUSTED_PROXIES` lists the proxy). Each process counts separately. None: no limit.",
    )
    cors_origins: str = setting(
        "",
        "Origins whose pages may use the API from a browser, separated by commas: `https://photos.example.com`; `*` "
        "for all. If an API key is needed, such a page sends it as a header: its requests do not carry the cookie of "
        "the search page.",
    )


@dataclass(frozen=True)
class EvaluateSettings:
    """The evaluation; the flags of `controller evaluate` set these."""

    against: str | None = setting(None, "The index to compare with. None: one index is measured.")
    queries: PositiveInt = setting(500, "The most queries of each kind: images, captions, labels.")
    labels: str | None = setting(
        None, "The metadata field with the labels. None: the first of label, labels, class, category, categories, tags."
    )
    captions: str | None = setting(
        None, "The metadata field with the captions. None: the first of caption, captions, text, description, title."
    )
