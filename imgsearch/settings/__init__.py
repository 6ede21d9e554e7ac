"""The one settings object: what the controller passes to every program, through environment variables.

`Settings.from_env` reads it once, in a program's `main`; `to_env` writes the variables that `from_env` reads.
The variable of a field is `IMGSEARCH_<GROUP>_<FIELD>`; an empty value means None where None is allowed.

Pydantic checks every value against its type and range, whether it comes from a variable or from code.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic.dataclasses import dataclass

from imgsearch.errors import UsageError

PREFIX = "IMGSEARCH"
API_KEY_VARIABLE = f"{PREFIX}_API_KEY"
"""The key of a client (`controller search`). No setting: a shell may have it where a program starts."""


def _normalized(schemes: Any) -> Any:
    """`https, HTTP` → `https,http`."""
    if not isinstance(schemes, str):
        return schemes
    return ",".join(scheme.strip().lower() for scheme in schemes.split(",") if scheme.strip())


Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=16)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Amount = Annotated[int, Field(ge=0)]
Interval = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
WholeSeconds = Annotated[int, Field(ge=1)]
Schemes = Annotated[Literal["", "https", "http", "https,http", "http,https"], BeforeValidator(_normalized)]
Autoscaler = Literal["gke", "karpenter", "coreweave", "nebius", "generic"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def setting(default: Any, doc: str, *, secret: bool = False) -> Any:
    """A field with its documentation, which docs/settings.md shows. A secret is in no message. An empty secret is an
    error: it comes from a Secret that was made wrongly, and must not open what it should lock."""
    return field(default=default, repr=not secret, metadata={"doc": doc, "secret": secret})


@dataclass(frozen=True)
class RunSettings:
    """One run: one indexing of one source with one model."""

    id: str = setting("", "The run's id, which is the name of its folder under `runs/`.")
    index: str = setting("", "The name of the index that the run publishes.")
    source: str = setting(
        "",
        "The images: a folder, `s3://bucket/prefix` (`gs://`, `az://`), a `.parquet` file or pattern, or "
        "`hf://datasets/…`.",
    )
    model: str = setting("", "An OpenCLIP `ARCH/TAG`, or `local-dir:PATH`.")
    base: str | None = setting(None, "For an update: the published run that it starts from. None: index everything.")
    shard_images: Count = setting(10_000, "Images in a shard, approximately.")
    part_images: Count = setting(2_000, "Images in a part. A killed pod loses one part at most.")


@dataclass(frozen=True)
class StorageSettings:
    """The storage of run folders."""

    uri: str = setting("", "A URI: `file://`, `s3://`, `gs://` or `az://`. Runs are in its folder `runs/`.")


@dataclass(frozen=True)
class StoreSettings:
    """The vector store."""

    url: str = setting("", "`chroma+file:///folder` (embedded), `chroma+http://host:8000` or `chroma+https://host`.")


@dataclass(frozen=True)
class EmbedSettings:
    """The embedder."""

    batch_images: Count | None = setting(
        None, "Images in one call of the model. None: the embedder finds it, starting from a value for the device."
    )
    max_pixels: Count = setting(
        200_000_000, "An image with more pixels is a decompression bomb, and is recorded as bad."
    )
    thumbnail_px: Pixels = setting(256, "Length of the longer side of a thumbnail, in pixels.")


@dataclass(frozen=True)
class SearchSettings:
    """The search service and its limits."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: Port = setting(8000, "Port to listen on. 0: a free port.")
    max_body_bytes: Count = setting(20_000_000, "The largest request body, in bytes. A larger one gets 413.")
    max_pixels: Count = setting(50_000_000, "The most pixels of a query image. A larger one gets 422.")
    max_k: Count = setting(200, "The most results of one search.")
    max_offset: Amount = setting(10_000, "The largest offset of a page.")
    max_text_chars: Count = setting(1_000, "The longest text query, in characters.")
    max_parts: Count = setting(16, "The most parts of one weighted query.")
    cache_vectors: Amount = setting(
        10_000, "Query vectors in the cache. The least recently used vector is evicted first."
    )
    batch_texts: Count = setting(32, "The most text queries in one call of the model.")
    batch_images: Count = setting(16, "The most image queries in one call of the model.")
    max_waiting: Count = setting(
        256,
        "The most queries that wait for the model or are in it, in each process. More get 429 with Retry-After. The "
        "texts or images of one `/v1/embed` are admitted together or refused together; an empty queue admits any "
        "number.",
    )
    workers: Count | None = setting(
        None,
        "Processes that answer requests. They share the port and the CPUs. Each has its own models, cache and queue, "
        "so N processes need up to N times the memory. More than 1 need a Chroma server. None: one for every 4 CPUs "
        "of the container's CPU limit, at least 1; without a CPU limit or a Chroma server, 1.",
    )
    refresh_seconds: Interval = setting(2.0, "Seconds between two checks for newly published indexes.")
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
    url_seconds: Interval = setting(10.0, "Timeout of an `image_url` with all its redirects, in seconds.")
    linger_seconds: Seconds = setting(
        0.0,
        "Seconds after SIGTERM in which the server accepts new requests. In this time /readyz returns 503, and "
        "each response closes its connection. Set the time that load balancers need to stop sending requests.",
    )
    drain_seconds: Seconds = setting(20.0, "Seconds in which running requests may finish after `linger_seconds`.")
    api_keys: str | None = setting(
        None,
        "API keys, as `NAME:SHA256HEX`, one a line or separated by commas (docs/api-keys.md shows how to make one). "
        "Requests must send one of the keys as `Authorization: Bearer …`. Several keys are valid at a time, and two "
        "may have one name. Not set: no key is needed. Empty is an error.",
        secret=True,
    )
    rate_limit: str | None = setting(
        None,
        "Requests that one client may send to search and embed, such as `20/second` or `600/minute`. More get 429. A "
        "batch counts as one request. A client is the name of an API key; without API keys it is an address (behind a "
        "proxy the proxy's address, unless uvicorn's variable `FORWARDED_ALLOW_IPS` names the proxy). Each process "
        "counts separately. None: no limit.",
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
    queries: Count = setting(500, "The most queries of each kind: images, captions, labels.")
    labels: str | None = setting(
        None, "The metadata field with the labels. None: the first of label, labels, class, category, categories, tags."
    )
    captions: str | None = setting(
        None, "The metadata field with the captions. None: the first of caption, captions, text, description, title."
    )


@dataclass(frozen=True)
class JobSettings:
    """Jobs in a cluster. The controller reads these; pods of the Jobs do not."""

    parallelism: Count | None = setting(
        None, "Shards that run at a time. None: as many as the cluster has GPUs for, at least 1."
    )
    retries: Amount = setting(3, "Retries of a shard after a temporary failure. A lost node does not count.")
    deadline_seconds: WholeSeconds | None = setting(
        None, "The longest time of a stage, in seconds. A longer stage fails. None: no limit."
    )
    ttl_seconds: Amount | None = setting(
        604_800, "Finished Jobs are deleted after this time, in seconds. None: `cleanup` deletes them."
    )
    autoscaler: Autoscaler | None = setting(
        None,
        "The autoscaler that adds GPU nodes for waiting pods. None: no node is added.",
    )
    capacity_seconds: WholeSeconds | None = setting(
        None,
        "The longest time that an embed Job waits for a node, in seconds. Then the run fails. None: no limit.",
    )
    queue: str | None = setting(None, "The Kueue LocalQueue that admits the embed Job. None: it starts at once.")
    gpu_hour_price: Price | None = setting(
        None, "Price of one GPU for one hour. `status` then shows the cost of a run."
    )


@dataclass(frozen=True)
class MetricsSettings:
    """Metrics of the programs that run as Jobs."""

    port: Port | None = setting(
        None,
        "Port of the Prometheus metrics of the embedder, of ingest and of the controller while they run. None: no "
        "port. The searcher has /metrics on its own port.",
    )


@dataclass(frozen=True)
class LogSettings:
    """Logs, and the result of a stage."""

    format: Literal["json", "text"] = setting("json", "Format of the log: one JSON object a line, or text for people.")
    level: LogLevel = setting("INFO", "The least severe level that is logged.")
    result_file: str = setting(
        "/dev/termination-log",
        "File to which a stage writes its result for the controller (Kubernetes' termination message).",
    )


@dataclass(frozen=True)
class Settings:
    """All settings of all programs; each program reads the groups that it needs."""

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
        """Reads `env`; raises UsageError for an invalid value, or a variable that no field has."""
        paths = {entry.variable: entry.path for entry in _SETTINGS}
        known = {*paths, API_KEY_VARIABLE}
        unknown = sorted(name for name in env if name.startswith(f"{PREFIX}_") and name not in known)
        if unknown:
            raise UsageError(f"unknown setting {', '.join(unknown)}; docs/settings.md lists all settings")
        return cls().with_values({paths[name]: text for name, text in env.items() if name in paths})

    def with_values(self, values: Mapping[str, Any]) -> Settings:
        """A copy with other values, by path (`embed.batch_images`). A text is read as in an environment variable.

        Raises UsageError for an invalid value, or a path that no field has."""
        by_path = {entry.path: entry for entry in _SETTINGS}
        groups: dict[str, dict[str, Any]] = {}
        for path, value in values.items():
            if path not in by_path:
                raise UsageError(f"unknown setting {path}; docs/settings.md lists all settings")
            known = by_path[path]
            if known.secret and value == "":
                raise UsageError(f"{known.name} is empty: set a value, or remove the setting")
            groups.setdefault(known.group, {})[known.spec.name] = None if known.optional and value == "" else value
        return dataclasses.replace(self, **{group: self._group(group, values) for group, values in groups.items()})

    def to_env(self) -> dict[str, str]:
        """The variables that differ from the defaults; `from_env` of them equals this object."""
        env = {}
        for entry in _SETTINGS:
            value = getattr(getattr(self, entry.group), entry.spec.name)
            if value != entry.spec.default:
                env[entry.variable] = "" if value is None else str(value)
        return env

    def _group(self, group: str, values: Mapping[str, Any]) -> Any:
        try:
            return dataclasses.replace(getattr(self, group), **values)
        except ValidationError as error:
            first = error.errors()[0]
            wrong = next(entry for entry in _SETTINGS if entry.path == f"{group}.{first['loc'][0]}")
            value = "" if wrong.secret else f" {first['input']!r}"
            raise UsageError(f"invalid value{value} for {wrong.name}: {_lower(first['msg'])}") from None


@dataclasses.dataclass(frozen=True)
class _Setting:
    """One field of one group."""

    group: str
    spec: dataclasses.Field[Any]
    type: Any
    """Without None."""
    optional: bool

    @property
    def path(self) -> str:
        return f"{self.group}.{self.spec.name}"

    @property
    def variable(self) -> str:
        return f"{PREFIX}_{self.group}_{self.spec.name}".upper()

    @property
    def name(self) -> str:
        """For a message: a person may have set the variable, or the path with `--set`."""
        return f"{self.path} ({self.variable})"

    @property
    def secret(self) -> bool:
        return bool(self.spec.metadata["secret"])

    def values(self) -> str:
        """The type and the range, for the documentation."""
        base = typing.get_args(self.type)[0] if typing.get_origin(self.type) is Annotated else self.type
        if typing.get_origin(base) is Literal:
            text = ", ".join(f"`{value}`" if value else "empty" for value in typing.get_args(base))
        else:
            text = base.__name__ + "".join(_bounds(self.type))
        return f"{text}; or None" if self.optional else text


def _all() -> list[_Setting]:
    found = []
    for group in dataclasses.fields(Settings):
        cls = typing.cast(type[Any], group.default_factory)
        hints = typing.get_type_hints(cls, include_extras=True)
        for spec in dataclasses.fields(cls):
            hint = hints[spec.name]
            optional = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
            if optional:
                hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
            found.append(_Setting(group.name, spec, hint, optional))
    return found


_SETTINGS = _all()


def _bounds(hint: Any) -> typing.Iterator[str]:
    """ ", from 1", ", above 0", ", to 65535": the bounds of an Annotated number."""
    for constraint in getattr(hint, "__metadata__", ()):
        for bound in getattr(constraint, "metadata", ()):
            for attribute, word in (("ge", "from"), ("gt", "above"), ("le", "to")):
                if (value := getattr(bound, attribute, None)) is not None:
                    yield f", {word} {value}"


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def documentation() -> str:
    """The Markdown table of docs/settings.md."""
    lines = ["| variable | values | default | meaning |", "| --- | --- | --- | --- |"]
    for entry in _SETTINGS:
        default = "" if entry.spec.default in ("", None) else f"`{entry.spec.default}`"
        lines.append(f"| `{entry.variable}` | {entry.values()} | {default} | {entry.spec.metadata['doc']} |")
    return "\n".join(lines) + "\n"
