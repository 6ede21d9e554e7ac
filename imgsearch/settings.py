"""The one settings object: what the controller hands to every program, through environment variables.

`Settings.from_env` reads it once, in a program's `main`; `to_env` writes what `from_env` reads back.
The variable of a field is `IMGSEARCH_<GROUP>_<FIELD>`; an empty value means None where None is allowed.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imgsearch.errors import UsageError

PREFIX = "IMGSEARCH"


def setting(default: Any, doc: str, *, secret: bool = False) -> Any:
    """A field with its documentation, which docs/settings.md shows. A secret is in no message, and an empty one is an
    error: it comes from a Secret that was made wrongly, and must not open what it should lock."""
    return field(default=default, repr=not secret, metadata={"doc": doc, "secret": secret})


@dataclass(frozen=True)
class RunSettings:
    """What one run is: one indexing of one source with one model."""

    id: str = setting("", "The run's id, the name of its folder under `runs/`.")
    index: str = setting("", "The index that the run is published as.")
    source: str = setting(
        "",
        "Where the images are: a folder, `s3://bucket/prefix` (`gs://`, `az://`), a `.parquet` file or pattern, or `hf://datasets/…`.",
    )
    model: str = setting("", "An OpenCLIP `ARCH/TAG`, or `local-dir:PATH`.")
    base: str | None = setting(None, "For an update: the published run that it starts from; None: index everything.")
    shard_images: int = setting(10_000, "About how many images make a shard.")
    part_images: int = setting(2_000, "How many images make a part, the most that a killed pod loses.")


@dataclass(frozen=True)
class StorageSettings:
    """Where run folders live."""

    uri: str = setting("", "`file://`, `s3://`, `gs://` or `az://`; runs are below `runs/` in it.")


@dataclass(frozen=True)
class StoreSettings:
    """Where vectors live."""

    url: str = setting("", "`chroma+file:///folder` (embedded) or `chroma+http://host:8000`.")


@dataclass(frozen=True)
class EmbedSettings:
    """How the embedder works."""

    batch_images: int | None = setting(
        None, "Images in one call of the model; None: found, starting from what suits the device."
    )
    max_pixels: int = setting(200_000_000, "An image with more pixels than this is a decompression bomb.")
    thumbnail_px: int = setting(256, "The longer side of a thumbnail, in pixels.")


@dataclass(frozen=True)
class SearchSettings:
    """What the searcher serves, and what it refuses."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8000, "Port to listen on.")
    max_body_bytes: int = setting(20_000_000, "A larger request is refused with 413.")
    max_pixels: int = setting(50_000_000, "A query image with more pixels is refused.")
    max_k: int = setting(200, "The most results of one search.")
    max_offset: int = setting(10_000, "How far paging goes.")
    max_text_chars: int = setting(1_000, "The longest text query.")
    max_parts: int = setting(16, "The most parts of one weighted query.")
    cache_vectors: int = setting(10_000, "How many query vectors are kept (least recently used go first).")
    batch_texts: int = setting(32, "The most text queries in one call of the model.")
    batch_images: int = setting(16, "The most image queries in one call of the model.")
    max_waiting: int = setting(
        256,
        "The most queries that wait for the model or are in it, in each process; more get 429 with Retry-After. The "
        "texts or images of one `/v1/embed` are let in together or not at all; where nobody waits, always.",
    )
    workers: int | None = setting(
        None,
        "Processes that answer requests, which share the port and the CPUs. Each has the models, the cache and the "
        "waiting queries of its own, so N need up to N times the memory. More than 1 need a Chroma server. None: one "
        "for every 4 CPUs of the container's CPU limit, at least 1; 1 where there is no limit, or no such server.",
    )
    refresh_seconds: float = setting(2.0, "How often newly published indexes are looked for.")
    url_schemes: str = setting(
        "https", "How an `image_url` may begin: `https`, or `https,http`. Empty: nothing is fetched."
    )
    url_allow: str = setting(
        "",
        "The only hosts that an `image_url` may name, with commas between them: `photos.example.com`, "
        "`*.example.com` (every host below it), with `:port` after it where that is neither 80 nor 443. Empty: every "
        "host with a public address, at these ports. A host that is named here without `*` may also have a private "
        "address (RFC 1918, RFC 4193); a loopback, link-local or metadata address is never asked.",
    )
    url_deny: str = setting(
        "",
        "Hosts and addresses (IPv6 in brackets) that an `image_url` may not lead to, written as in `url_allow`; it "
        "comes before that.",
    )
    url_seconds: float = setting(10.0, "How long fetching an `image_url` may take, with all its redirects.")
    linger_seconds: float = setting(
        0.0,
        "How long requests are still taken after SIGTERM, while /readyz says 503 and each answer asks its client to "
        "connect anew: as long as load balancers need to send them elsewhere.",
    )
    drain_seconds: float = setting(20.0, "How long running requests may take to end after that.")
    api_keys: str | None = setting(
        None,
        "The API keys, one of which requests must bring as `Authorization: Bearer …`: `NAME:SHA256HEX` each, one a "
        "line or with commas between them (docs/kubernetes.md says how to make one). Several are valid at a time, and "
        "two may have one name. Not set: anyone may ask. Empty is an error.",
        secret=True,
    )
    rate_limit: str | None = setting(
        None,
        "How much one client may post, `20/second` or `600/minute`: searches and embeddings, each request one, however "
        "many searches it has; more get 429. A client is the name of an API key, or where there are none an address "
        "(behind a proxy that of the proxy, unless uvicorn's variable `FORWARDED_ALLOW_IPS` names it). Each process "
        "counts for itself. None: no limit.",
    )
    cors_origins: str = setting(
        "",
        "Whose pages may use the API from a browser, with commas between them: `https://photos.example.com`; `*`: "
        "everyone's. They bring an API key, where one is wanted, as a header: the cookie of the page here is not sent "
        "from theirs.",
    )


@dataclass(frozen=True)
class EvaluateSettings:
    """What `controller evaluate` measures; its flags set these."""

    against: str | None = setting(None, "The index that is compared with the run's; None: it is measured alone.")
    queries: int = setting(500, "How many images, captions and labels are searched with, at most, of each.")
    labels: str | None = setting(None, "The field of the metadata with the labels; None: one that is called so.")
    captions: str | None = setting(None, "The field of the metadata with the captions; None: one that is called so.")


@dataclass(frozen=True)
class JobSettings:
    """How the controller makes Jobs in a cluster; no pod of theirs reads it."""

    parallelism: int | None = setting(None, "Shards at a time; None: as many as the cluster has GPUs for, at least 1.")
    retries: int = setting(3, "How often a shard may fail with what a retry can mend; a lost node does not count.")
    deadline_seconds: int | None = setting(None, "A stage that takes longer is ended; None: it may take its time.")
    ttl_seconds: int | None = setting(604_800, "Ended Jobs are removed after so long; None: `cleanup` removes them.")
    autoscaler: str | None = setting(
        None,
        "What adds GPU nodes when pods wait for them: `gke`, `karpenter`, `coreweave`, `nebius` or `generic`; None: "
        "the nodes that exist are all there will be.",
    )
    capacity_seconds: int | None = setting(
        None, "An embedding that no node has had room for so long is given up; None: it may wait for ever."
    )
    queue: str | None = setting(None, "The Kueue LocalQueue that admits the embed Job; None: it starts at once.")
    gpu_hour_price: float | None = setting(None, "What a GPU costs an hour; `status` then says what a run has cost.")


@dataclass(frozen=True)
class MetricsSettings:
    """Where programs that end by themselves are scraped."""

    port: int | None = setting(
        None,
        "Port of the Prometheus metrics of the embedder, of ingest and of the controller while they run; None: no "
        "port is opened. The searcher has /metrics on its own port.",
    )


@dataclass(frozen=True)
class LogSettings:
    """How programs log."""

    format: str = setting("json", "`json` (one object a line) or `text`.")
    level: str = setting("INFO", "`DEBUG`, `INFO`, `WARNING` or `ERROR`.")
    result_file: str = setting(
        "/dev/termination-log",
        "Where a stage leaves its result, which the controller reads (Kubernetes' termination message).",
    )


@dataclass(frozen=True)
class Settings:
    """Everything a program can be told; each program reads the groups that it needs."""

    run: RunSettings = field(default_factory=RunSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    embed: EmbedSettings = field(default_factory=EmbedSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    jobs: JobSettings = field(default_factory=JobSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    log: LogSettings = field(default_factory=LogSettings)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Reads `env`; raises UsageError for a value of the wrong type or a variable that no field has."""
        known = {name for name, _, _ in _variables()}
        unknown = sorted(name for name in env if name.startswith(f"{PREFIX}_") and name not in known)
        if unknown:
            raise UsageError(f"no setting is called {', '.join(unknown)}; docs/settings.md lists them all")
        groups: dict[str, dict[str, Any]] = {}
        for name, group, spec in _variables():
            if name in env:
                if spec.metadata["secret"] and not env[name]:
                    raise UsageError(f"{name} is empty: give it a value, or leave it out")
                groups.setdefault(group, {})[spec.name] = _parse(name, env[name], _hint(group, spec.name))
        return cls(**{group: _GROUPS[group](**values) for group, values in groups.items()})

    def to_env(self) -> dict[str, str]:
        """The variables that differ from the defaults; `from_env` of them equals this object."""
        env = {}
        for name, group, spec in _variables():
            value = getattr(getattr(self, group), spec.name)
            if value != spec.default:
                env[name] = "" if value is None else str(value)
        return env


_GROUPS: dict[str, type[Any]] = {
    "run": RunSettings,
    "storage": StorageSettings,
    "store": StoreSettings,
    "embed": EmbedSettings,
    "search": SearchSettings,
    "evaluate": EvaluateSettings,
    "jobs": JobSettings,
    "metrics": MetricsSettings,
    "log": LogSettings,
}


def _variables() -> list[tuple[str, str, dataclasses.Field[Any]]]:
    return [
        (f"{PREFIX}_{group}_{spec.name}".upper(), group, spec)
        for group, cls in _GROUPS.items()
        for spec in dataclasses.fields(cls)
    ]


def _hint(group: str, name: str) -> Any:
    return typing.get_type_hints(_GROUPS[group])[name]


def _parse(name: str, text: str, hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        if text == "":
            return None
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    try:
        return hint(text)
    except ValueError:
        raise UsageError(f"{name}={text!r} is not a valid {hint.__name__}; correct it or leave it out") from None


def documentation() -> str:
    """The Markdown table of docs/settings.md."""
    lines = ["| variable | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, group, spec in _variables():
        hint = _hint(group, spec.name)
        kind = hint.__name__ if isinstance(hint, type) else str(hint)
        kind = kind.replace("|", "or")
        default = "" if spec.default in ("", None) else f"`{spec.default}`"
        lines.append(f"| `{name}` | {kind} | {default} | {spec.metadata['doc']} |")
    return "\n".join(lines) + "\n"
