"""A dataset of the Hugging Face hub as a source: its Parquet files at one commit, read by range."""

from __future__ import annotations

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

from imgsearch.errors import PermanentError, TemporaryError, UsageError, first_line
from imgsearch.sources.parquet import DataFile, ParquetSource
from imgsearch.sources.uri import HubDataset

CONVERTED = "refs/convert/parquet"
"""The branch on which the hub converts every dataset to Parquet: `config/split/0000.parquet`."""
PATHS = 500
"""The most paths in one request to the hub."""
MISSING = "dataset {} does not exist or is private: correct its name, or set HF_TOKEN"
GONE = "the hub has deleted the version of dataset {} that was listed: index it again with a new --run"


def open_dataset(uri: HubDataset) -> ParquetSource:
    files = HubFiles(uri.name, split=uri.split, config=uri.config, revision=uri.revision)
    return ParquetSource(uri.text, files, column=uri.column)


class HubFiles:
    """The Parquet files of one split: the dataset's own, or those that the hub made of it."""

    def __init__(
        self, name: str, *, split: str | None = None, config: str | None = None, revision: str | None = None
    ) -> None:
        self._name = name
        self._split = split
        self._config = config
        self._revision = revision
        self._api = HfApi()
        # Without this, all file systems of the process share one cache of listings.
        self._disk = HfFileSystem(skip_instance_cache=True)

    def files(self) -> list[DataFile]:
        """The files at the newest commit of the revision. An etag is `blob@commit`: the blob changes with the
        content only, and the file is read at the commit that was listed.

        Raises UsageError if the dataset does not exist, is private, or has no Parquet files."""
        with _translated(self._name):
            self._api.auth_check(self._name, repo_type="dataset")
            commit = self._commit(self._revision)
            files = self._own_files(commit)
            if files is None:
                commit = self._commit(CONVERTED)
                files = self._converted_files(commit)
        return [DataFile(file.path, file.size, f"{file.blob_id}@{commit}") for file in files]

    def open(self, path: str, etag: str = "") -> tuple[AbstractContextManager[Any], str]:
        """Opens without read-ahead: the caller reads exactly the ranges that it needs. A file of a commit never
        changes."""
        with _translated(self._name):
            if etag:
                return self._open(path, etag.rpartition("@")[2]), etag
            with suppress(FileNotFoundError):
                return self._open(path, self._commit(self._revision)), etag
            return self._open(path, self._commit(CONVERTED)), etag

    def features(self) -> Mapping[str, Any]:
        """The features that the dataset's page declares, for files that `datasets` did not write."""
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
                    f"dataset {self._name} has no Parquet files, and the hub has not converted it: "
                    "convert it, or download it and index its folder"
                ) from error
            raise UsageError(
                f"dataset {self._name} has no revision {revision!r}: correct it, or leave it out"
            ) from error

    def _own_files(self, commit: str) -> list[RepoFile] | None:
        """The dataset's own files; None if they are not Parquet."""
        builder = self._builder(commit)
        if builder is None or not builder.config.data_files:
            return None
        splits = {str(split): list(urls) for split, urls in builder.config.data_files.items()}
        urls = splits[_choose("split", self._split, splits, name=self._name)]
        paths = [url.partition(f"@{commit}/")[2] for url in urls]
        if not all(path.endswith(".parquet") for path in paths):
            return None
        files: list[RepoFile] = []
        for start in range(0, len(paths), PATHS):
            page = paths[start : start + PATHS]
            infos = self._api.get_paths_info(self._name, page, revision=commit, repo_type="dataset")
            files += [info for info in infos if isinstance(info, RepoFile)]
        return files

    def _converted_files(self, commit: str) -> list[RepoFile]:
        tree = self._api.list_repo_tree(self._name, recursive=True, revision=commit, repo_type="dataset")
        by_config: dict[str, dict[str, list[RepoFile]]] = {}
        for file in tree:
            if isinstance(file, RepoFile) and file.path.endswith(".parquet"):
                folder, split, _ = file.path.split("/", 2)
                by_config.setdefault(folder, {}).setdefault(split, []).append(file)
        config = self._config or ("default" if "default" in by_config else None)
        splits = by_config[_choose("config", config, by_config, name=self._name)]
        return splits[_choose("split", self._split, splits, name=self._name)]

    def _builder(self, commit: str) -> Any:
        """The builder of `datasets` for the repository at `commit`; None if it finds no data."""
        # Imported here: it takes seconds, and reading does not need it.
        import datasets
        from datasets.data_files import EmptyDatasetError
        from datasets.exceptions import DataFilesNotFoundError

        # An empty cache: otherwise `datasets` silently falls back to the last revision that it has resolved.
        with tempfile.TemporaryDirectory() as cache:
            try:
                return datasets.load_dataset_builder(
                    f"hf://datasets/{self._name}", self._config, revision=commit, cache_dir=cache
                )
            except (ValueError, YAMLError) as error:  # several configs, or a damaged page
                reason = " ".join(str(error).splitlines()[:2])
                raise UsageError(
                    f"dataset {self._name} has several configs, or its page is damaged: name a config with &config= "
                    f"({reason})"
                ) from error
            except (DataFilesNotFoundError, EmptyDatasetError):
                return None
            except FileNotFoundError as error:  # also for the hub's 503
                raise TemporaryError(f"the hub failed for dataset {self._name}: {first_line(error)}") from error
            except RuntimeError as error:
                if "Dataset scripts are no longer supported" in str(error):
                    return None
                raise


class _Ranges(HfFileSystemFile):
    """A file of the hub that raises our errors."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        with _translated(self.path):
            return super()._fetch_range(start, end)


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except GatedRepoError as error:
        raise UsageError(
            f"dataset {name} is gated: accept its terms on its page, and set HF_TOKEN to a token of the same account"
        ) from error
    except RepositoryNotFoundError as error:
        raise UsageError(MISSING.format(name)) from error
    except OfflineModeIsEnabled as error:
        raise UsageError(f"dataset {name} is on the hub, and HF_HUB_OFFLINE is set: unset it") from error
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise UsageError(f"the hub refused dataset {name}: set HF_TOKEN to a token that may read it") from error
        if error.response.status_code == 404:
            raise PermanentError(GONE.format(name)) from error
        raise TemporaryError(f"the hub failed for dataset {name}: {first_line(error)}") from error
    except FileNotFoundError as error:  # the file system raises it, for a dataset too
        if isinstance(error.__cause__, RepositoryNotFoundError):
            raise UsageError(MISSING.format(name)) from error
        if isinstance(error.__cause__, RevisionNotFoundError):
            raise PermanentError(GONE.format(name)) from error
        raise
    except (httpx2.HTTPError, OSError) as error:
        raise TemporaryError(f"the hub did not answer for dataset {name}: {first_line(error)}") from error


def _choose(option: str, wanted: str | None, available: Iterable[str], *, name: str) -> str:
    """`wanted`, or the only one if none is wanted."""
    names = sorted(available)
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted in names:
        return wanted
    problem = f"has no {option} {wanted!r}" if wanted else f"has more than one {option}"
    raise UsageError(f"dataset {name} {problem}: name one of {', '.join(names)} with ?{option}=")
