"""The catalog of served indexes: the store's pointers, each with its loaded model, refreshed every few seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from imgsearch.encoder import Encoder
from imgsearch.errors import ImgsearchError, NotFound, TemporaryError
from imgsearch.stores import Pointer, VectorStore
from searcher.search.errors import Problem
from searcher.search.metrics import Metrics
from searcher.search.model import Model
from searcher.search.tables import Tables
from searcher.search.threads import Threads
from searcher.table.reader import RunTable

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_LOAD_SECONDS = 60.0
"""The wait before a model that failed to load is loaded again: the load may include a download."""


@dataclass(frozen=True)
class ServedIndex:
    """A published run, and the model of its vectors. A request uses the same one from start to end."""

    pointer: Pointer
    model: Model
    table: RunTable | None
    """None: the run has none, or it is not open yet. The store then answers all searches."""


@dataclass(frozen=True)
class _Failure:
    reason: str
    retry_at: float
    """Seconds on the catalog's clock."""


class Catalog:
    """The served indexes.

    - A new pointer is served as soon as its model is loaded. Until then, the previous one is served.
    - A pointer is not served if its model cannot be loaded, or has other weights than its vectors were made with.
      `problems` gives the reason, and the previous pointer is served instead.
    - The previous run stays available for paging, as does its model if it is loaded. No model is loaded for it.
    - Indexes with the same weights share one model. A model that no run needs is released.
    - A run is served at once without its table, which is opened in the background, and then used. That of the previous
      run is opened, too.
    """

    def __init__(
        self,
        store: VectorStore,
        *,
        load_encoder: Callable[[str], Encoder],
        make_model: Callable[[Encoder], Model],
        tables: Tables,
        threads: Threads,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._load_encoder = load_encoder
        self._make_model = make_model
        self._tables = tables
        self._threads = threads
        self._metrics = metrics
        self._clock = clock
        self._lock = asyncio.Lock()
        self._refreshes: set[asyncio.Task[None]] = set()
        """References to the tasks of requests that refresh: the event loop itself holds only weak ones."""
        self._models: dict[tuple[str, str], Model] = {}
        self._failures: dict[tuple[str, str], _Failure] = {}
        self.indexes: Mapping[str, ServedIndex] = {}
        """The served indexes by name. The mapping is replaced, never changed."""
        self.problems: Mapping[str, str] = {}
        """By name: the reason why the newest run of an index is not served."""
        self.store_problem: str | None = "the indexes have not been read yet"
        """The reason why the pointers may be out of date; None: they are current."""
        self.started = False
        """Whether each index of the first refresh is served or has a problem."""

    async def run(self, every: float) -> None:
        """Refreshes forever; `every` is in seconds."""
        try:
            while True:
                try:
                    await self.refresh()
                except Exception:  # one unexpected error must not stop the refreshes
                    log.exception("reading the indexes failed; retrying in %s s", every)
                await asyncio.sleep(every)
        finally:
            self._tables.close()

    async def refresh(self) -> None:
        """Reads the pointers, and serves the new ones."""
        async with self._lock:
            await self._refresh()

    def listed(self) -> Mapping[str, ServedIndex]:
        """`indexes`. Raises TemporaryError if they have not been read yet."""
        if not self.indexes and self.store_problem:
            raise TemporaryError(f"{self.store_problem}; try again in a moment")
        return self.indexes

    def pick(self, name: str | None) -> ServedIndex:
        """The index of that name, or the only one. Raises Problem or TemporaryError, which say what to do."""
        names = sorted({*self.listed(), *self.problems})
        if not names:
            raise Problem(
                404,
                "no index yet; create one with: controller run-pipeline SOURCE (on one machine: --local). If there was "
                "one, the vector store is lost; rebuild it with: controller restore",
            )
        if name is None:
            if len(names) > 1:
                raise Problem(400, f"there are several indexes; name one as `index`: {', '.join(names)}")
            name = names[0]
        if name in self.indexes:
            return self.indexes[name]
        if name in self.problems:
            raise TemporaryError(f'index "{name}" is not served: {self.problems[name]}')
        raise Problem(404, f'index "{name}" does not exist; available: {", ".join(names)}')

    async def find(self, name: str | None, run: str | None) -> ServedIndex:
        """The index at this run, which may be the previous one; None: the current run. Raises Problem 410 where the run
        was deleted, and what `pick` raises."""
        if name is None or run is None:
            index = self.pick(name)
            if run is None:
                return index
            name = index.pointer.index
        current = self.indexes.get(name)
        if current is not None and current.pointer.run == run:
            return current
        # Read again: another process may have read a new pointer before this one.
        newest = (await self._threads.store(self._store.pointers)).get(name)
        for pointer in (newest, newest and newest.previous):
            if pointer is not None and pointer.run == run and _model_key(pointer) in self._models:
                return ServedIndex(pointer, self._models[_model_key(pointer)], self._tables.opened(pointer))
        if newest is not None and newest.run == run:
            raise TemporaryError(f'run "{run}" of index "{name}" is not served yet: {self._reason(newest)}')
        raise _gone(name, run)

    async def using(
        self, name: str | None, call: Callable[[ServedIndex], Awaitable[T]], *, run: str | None = None
    ) -> T:
        """Runs `call` with the index, and once more with its successor if the collection was deleted meanwhile.

        With `run`, a deleted collection is Problem 410 instead."""
        index = await self.find(name, run)
        while True:
            try:
                return await call(index)
            except NotFound:
                if run is not None:
                    raise _gone(index.pointer.index, run) from None
                successor = await self._successor(index)
                if successor is None:
                    raise
                index = successor

    async def not_ready(self) -> list[str]:
        """The reasons why this process is not ready; empty: it is ready.

        An index that cannot be served does not make the process unready: a bad publish would stop all indexes."""
        if not self.started:
            return [self.store_problem or "models are being loaded"]
        if self.problems and not self.indexes:
            return [f"{name}: {problem}" for name, problem in self.problems.items()]
        if not self.indexes and self.store_problem:
            return [self.store_problem]
        reasons = []
        for name in self.indexes:
            try:
                await self.using(name, self._count)
            except (ImgsearchError, Problem) as error:
                reasons.append(f"{name}: {error}")
        return reasons

    async def _count(self, index: ServedIndex) -> int:
        return await self._threads.store(self._store.count, index.pointer.collection)

    async def _successor(self, index: ServedIndex) -> ServedIndex | None:
        # A task of its own: the refresh is for all requests, and must not end half-way with a client that hangs up.
        refresh = asyncio.create_task(self._refresh_after(index))
        self._refreshes.add(refresh)
        refresh.add_done_callback(self._refreshes.discard)
        await asyncio.shield(refresh)
        successor = self.indexes.get(index.pointer.index)
        return None if successor is index else successor

    async def _refresh_after(self, index: ServedIndex) -> None:
        async with self._lock:
            if self.indexes.get(index.pointer.index) is index:
                await self._refresh()

    async def _refresh(self) -> None:
        try:
            pointers = await self._threads.store(self._store.pointers)
        except ImgsearchError as error:
            if self.store_problem != str(error):
                log.warning("reading the indexes failed: %s", error)
            self.store_problem = str(error)
            return
        self.store_problem = None
        self._replace({name: index for name, index in self.indexes.items() if name in pointers})
        new = [pointer for pointer in pointers.values() if not self._is_served(pointer)]
        self.problems = {pointer.index: self._reason(pointer) for pointer in new}
        self._follow_tables(pointers)
        # Pointers with a loaded model first, so that they do not wait for the others' models to load.
        for pointer in sorted(new, key=lambda pointer: _model_key(pointer) not in self._models):
            await self._serve(pointer)
        needed = {_model_key(index.pointer) for index in self.indexes.values()}
        needed |= {_model_key(pointer.previous) for pointer in pointers.values() if pointer.previous}
        self._models = {key: model for key, model in self._models.items() if key in needed}
        self._follow_tables(pointers)
        self.started = True

    def _follow_tables(self, pointers: Mapping[str, Pointer]) -> None:
        """Opens the tables of the current runs, and then those of the previous ones."""
        current = [*(index.pointer for index in self.indexes.values()), *pointers.values()]
        previous = [pointer.previous for pointer in current if pointer.previous is not None]
        self._tables.follow([*current, *previous], self._use_tables)

    def _use_tables(self) -> None:
        """Serves the indexes with the tables that are open now."""
        indexes = {}
        for name, index in self.indexes.items():
            table = self._tables.opened(index.pointer)
            indexes[name] = index if table is index.table else replace(index, table=table)
        self._replace(indexes)

    async def _serve(self, pointer: Pointer) -> None:
        model = await self._model(pointer)
        if model is None:
            self.problems = {**self.problems, pointer.index: self._reason(pointer)}
            return
        self._replace({**self.indexes, pointer.index: ServedIndex(pointer, model, self._tables.opened(pointer))})
        self.problems = {name: reason for name, reason in self.problems.items() if name != pointer.index}
        log.info("index %s is served from run %s, %s images", pointer.index, pointer.run, pointer.images)

    def _is_served(self, pointer: Pointer) -> bool:
        index = self.indexes.get(pointer.index)
        return index is not None and index.pointer == pointer

    def _reason(self, pointer: Pointer) -> str:
        failure = self._failures.get(_model_key(pointer))
        return failure.reason if failure else "its model is being loaded"

    def _replace(self, indexes: Mapping[str, ServedIndex]) -> None:
        if indexes != self.indexes:
            self.indexes = indexes
            self._metrics.serving(index.pointer for index in indexes.values())

    async def _model(self, pointer: Pointer) -> Model | None:
        """The model of the pointer; None where it failed to load, and `_failures` has the reason."""
        key = _model_key(pointer)
        if key in self._models:
            return self._models[key]
        failure = self._failures.get(key)
        if failure is not None and self._clock() < failure.retry_at:
            return None
        try:
            model = self._models[key] = await self._load(pointer)
        except Exception as error:  # a model is third-party code: it may raise anything, and the others must go on
            known = isinstance(error, ImgsearchError)
            log.warning("loading the model of index %s failed: %s", pointer.index, error, exc_info=not known)
            reason = str(error) or type(error).__name__
            self._failures[key] = _Failure(reason, self._clock() + RETRY_LOAD_SECONDS)
            return None
        self._failures.pop(key, None)
        return model

    async def _load(self, pointer: Pointer) -> Model:
        log.info("loading the model %s for run %s", pointer.model, pointer.run)
        encoder = await self._threads.load(self._load_encoder, pointer.model)
        pointer.check_weights(encoder.fingerprint)
        return self._make_model(encoder)


def _gone(name: str, run: str) -> Problem:
    return Problem(410, f'run "{run}" of index "{name}" was deleted; search again without `cursor` and `run`')


def _model_key(pointer: Pointer) -> tuple[str, str]:
    return pointer.model, pointer.fingerprint
