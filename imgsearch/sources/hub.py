"""A dataset of the Hugging Face hub as a source: its Parquet files at one commit, read by range."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from typing import Any

import httpx2
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.hf_file_system import HfFileSystemFile
from yaml import YAMLError

from imgsearch.errors import PermanentError, TemporaryError, UsageError
from imgsearch.sources import options
from imgsearch.sources.parquet import DataFile, ParquetSource, first_line

CONVERTED = "refs/convert/parquet"
"""The branch on which the hub keeps every dataset as Parquet: `config/split/0000.parquet`."""
PATHS = 500
"""How many paths one question to the hub may name."""
MISSING = "the hub has no dataset {}, or not for you: correct its name, or set HF_TOKEN where it is private"
GONE = "the hub no longer has {} as it was when it was listed: index it again under a new --run"
URI = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:\?(.*))?")


def open_dataset(uri: str) -> ParquetSource:
    """`hf://datasets/OWNER/NAME?split=train`, and `column`, `config` and `revision` where they are needed.

    Raises UsageError for another URI; the hub is not asked yet."""
    parsed = URI.fullmatch(uri)
    if not parsed:
        raise UsageError(f"{uri!r} names no dataset; use hf://datasets/OWNER/NAME?split=train")
    chosen = options(uri, parsed[2] or "", {"split", "column", "config", "revision"})
    column = chosen.pop("column", None)
    return ParquetSource(uri, HubFiles(parsed[1], **chosen), column=column)


class HubFiles:
    """The Parquet files of one split: the dataset's own, else those that the hub made of it."""

    def __init__(
        self, name: str, *, split: str | None = None, config: str | None = None, revision: str | None = None
    ) -> None:
        self._name = name
        self._split = split
        self._config = config
        self._revision = revision
        self._api = HfApi()
        # Without this, file systems share what they found, for as long as the process lives.
        self._disk = HfFileSystem(skip_instance_cache=True)

    def files(self) -> list[DataFile]:
        """The files at the newest commit of the revision. An etag is `blob@commit`: the blob changes with the
        content only, and the file is read at the commit that was listed.

        Raises UsageError where the dataset is not there, not for us, or not to be had as Parquet."""
        with _translated(self._name):
            self._api.auth_check(self._name, repo_type="dataset")
            commit = self._commit(self._revision)
            files = self._own(commit)
            if files is None:
                commit = self._commit(CONVERTED)
                files = self._converted(commit)
        return [DataFile(file.path, file.size, f"{file.blob_id}@{commit}") for file in files]

    def open(self, path: str, etag: str = "") -> AbstractContextManager[Any]:
        """Reads exactly the ranges that are asked for: only the caller knows how far it will read."""
        with _translated(self._name):
            if etag:
                return self._open(path, etag.rpartition("@")[2])
            with suppress(FileNotFoundError):
                return self._open(path, self._commit(self._revision))
            return self._open(path, self._commit(CONVERTED))

    def features(self) -> Mapping[str, Any]:
        """As the dataset's page declares them, for files that were not written by `datasets`."""
        return self._declared

    @cached_property
    def _declared(self) -> Mapping[str, Any]:
        with _translated(self._name):
            builder = self._builder(self._commit(self._revision))
        return builder.info.features.to_dict() if builder and builder.info.features else {}

    def _open(self, path: str, commit: str) -> _Ranges:
        return _Ranges(self._disk, f"datasets/{self._name}/{path}", commit, mode="rb", cache_type="none")

    def _commit(self, revision: str | None) -> str:
        try:
            return str(self._api.dataset_info(self._name, revision=revision).sha)
        except RevisionNotFoundError as error:
            if revision == CONVERTED:
                raise UsageError(
                    f"{self._name} holds no Parquet files, and the hub has made none of it: "
                    "convert it, or download it and index its folder"
                ) from error
            raise UsageError(f"{self._name} has no revision {revision!r}; correct it, or leave it out") from error

    def _own(self, commit: str) -> list[RepoFile] | None:
        """None where the dataset's own files are not Parquet."""
        builder = self._builder(commit)
        if builder is None or not builder.config.data_files:
            return None
        splits = {str(split): list(urls) for split, urls in builder.config.data_files.items()}
        urls = splits[_choose("split", self._split, splits, name=self._name)]
        paths = [url.partition(f"@{commit}/")[2] for url in urls]
        if not all(path.endswith(".parquet") for path in paths):
            return None
        found: list[RepoFile] = []
        for start in range(0, len(paths), PATHS):
            some = paths[start : start + PATHS]
            infos = self._api.get_paths_info(self._name, some, revision=commit, repo_type="dataset")
            found += [info for info in infos if isinstance(info, RepoFile)]
        return found

    def _converted(self, commit: str) -> list[RepoFile]:
        tree = self._api.list_repo_tree(self._name, recursive=True, revision=commit, repo_type="dataset")
        by_config: dict[str, dict[str, list[RepoFile]]] = {}
        for file in tree:
            if isinstance(file, RepoFile) and file.path.endswith(".parquet"):
                config, split, _ = file.path.split("/", 2)
                by_config.setdefault(config, {}).setdefault(split, []).append(file)
        wanted = self._config or ("default" if "default" in by_config else None)
        splits = by_config[_choose("config", wanted, by_config, name=self._name)]
        return splits[_choose("split", self._split, splits, name=self._name)]

    def _builder(self, commit: str) -> Any:
        """What `datasets` makes of the repository at `commit`; None where it can make nothing of it."""
        # Imported here: it takes seconds, and reading needs none of it.
        import datasets
        from datasets.data_files import EmptyDatasetError
        from datasets.exceptions import DataFilesNotFoundError

        # An empty cache: otherwise what cannot be resolved is silently replaced by what was resolved last.
        with tempfile.TemporaryDirectory() as cache:
            try:
                return datasets.load_dataset_builder(
                    f"hf://datasets/{self._name}", self._config, revision=commit, cache_dir=cache
                )
            except (ValueError, YAMLError) as error:  # several configs to choose from, or a page that is damaged
                reason = " ".join(str(error).splitlines()[:2])
                raise UsageError(
                    f"{self._name} does not say which its files are: name a config with &config= ({reason})"
                ) from error
            except (DataFilesNotFoundError, EmptyDatasetError):
                return None
            except FileNotFoundError as error:  # also what the hub's 503 has become by now
                raise TemporaryError(f"the hub did not give {self._name}: {first_line(error)}") from error
            except RuntimeError as error:
                if "Dataset scripts are no longer supported" in str(error):
                    return None
                raise


class _Ranges(HfFileSystemFile):
    """A file of the hub, whose errors are ours."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        with _translated(self.path):
            return super()._fetch_range(start, end)


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except GatedRepoError as error:
        raise UsageError(
            f"{name} is gated: accept its terms on its page, and set HF_TOKEN to a token of the same account"
        ) from error
    except RepositoryNotFoundError as error:
        raise UsageError(MISSING.format(name)) from error
    except OfflineModeIsEnabled as error:
        raise UsageError(f"{name} is on the hub, and HF_HUB_OFFLINE forbids to ask it: unset that") from error
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise UsageError(f"the hub refused {name}: set HF_TOKEN to a token that may read it") from error
        if error.response.status_code == 404:
            raise PermanentError(GONE.format(name)) from error
        raise TemporaryError(f"the hub did not give {name}: {first_line(error)}") from error
    except FileNotFoundError as error:  # so the file system says it, for a dataset too
        if isinstance(error.__cause__, RepositoryNotFoundError):
            raise UsageError(MISSING.format(name)) from error
        if isinstance(error.__cause__, RevisionNotFoundError):
            raise PermanentError(GONE.format(name)) from error
        raise
    except (httpx2.HTTPError, OSError) as error:
        raise TemporaryError(f"the hub did not answer for {name}: {first_line(error)}") from error


def _choose(what: str, wanted: str | None, there: Iterable[str], *, name: str) -> str:
    """The only one there is, where none is wanted."""
    known = sorted(there)
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted in known:
        return wanted
    missing = f"has no {what} {wanted!r}" if wanted else f"has more than one {what}"
    raise UsageError(f"{name} {missing}: name one of {', '.join(known)} with ?{what}=")
