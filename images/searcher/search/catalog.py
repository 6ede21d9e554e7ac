"""Which runs are served: the store's pointers, each with its loaded model, read again every few seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from imgsearch.encoder import Encoder
from imgsearch.errors import ImgsearchError, NotFound, PermanentError, TemporaryError
from imgsearch.stores import Pointer, VectorStore
from searcher.search.batcher import Model
from searcher.search.errors import Problem
from searcher.search.metrics import Metrics
from searcher.search.threads import Threads

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOAD_AGAIN_SECONDS = 60.0
"""A model that could not be loaded is tried again after so long: it may have to be downloaded."""


@dataclass(frozen=True)
class Index:
    """One published run and the model that its vectors were made with. A request keeps one to its end."""

    pointer: Pointer
    model: Model


@dataclass(frozen=True)
class _Failure:
    reason: str
    until: float
    """On the clock; not tried again before."""


class Catalog:
    """The indexes that are served.

    - A new pointer is served from the moment that its model is loaded; until then, its predecessor is.
    - A pointer whose model cannot be had, or has other weights than its vectors were made with, is not
      served; `problems` says why, and its predecessor goes on.
    - A run stays at hand for those who page through it as long as its successor names it as `previous`, and with it
      its model, if that is loaded: none is loaded for it.
    - Indexes with the same weights share one model; a model that no run needs is let go.
    """

    def __init__(
        self,
        store: VectorStore,
        *,
        load_encoder: Callable[[str], Encoder],
        make_model: Callable[[Encoder], Model],
        threads: Threads,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._load_encoder = load_encoder
        self._make_model = make_model
        self._threads = threads
        self._metrics = metrics
        self._clock = clock
        self._lock = asyncio.Lock()
        self._models: dict[tuple[str, str], Model] = {}
        self._failures: dict[tuple[str, str], _Failure] = {}
        self.indexes: Mapping[str, Index] = {}
        """What is served now, by name; replaced, never changed."""
        self.problems: Mapping[str, str] = {}
        """Why the newest run of an index is not served, by name."""
        self.store_problem: str | None = "the indexes have not been read yet"
        """Why the pointers are not known to be current; None: they are."""
        self.started = False
        """Whether each index that there was at the start is served or has its problem."""

    async def run(self, every: float) -> None:
        """Refreshes for ever, `every` so many seconds."""
        while True:
            try:
                await self.refresh()
            except Exception:  # what is served must not go stale because of one surprise
                logger.exception("reading the indexes; will try again in %s s", every)
            await asyncio.sleep(every)

    async def refresh(self) -> None:
        """Reads the pointers and serves what is new."""
        async with self._lock:
            await self._refresh()

    def listed(self) -> Mapping[str, Index]:
        """`indexes`; raises TemporaryError where nothing is known of any, which is not the same as none."""
        if not self.indexes and self.store_problem:
            raise TemporaryError(f"{self.store_problem}; try again in a moment")
        return self.indexes

    def pick(self, name: str | None) -> Index:
        """The index of that name, or the only one; raises Problem or TemporaryError with what to do."""
        names = sorted({*self.listed(), *self.problems})
        if not names:
            raise Problem(
                404, "there is no index yet; make one: controller run-pipeline SOURCE (on one machine: --local)"
            )
        if name is None:
            if len(names) > 1:
                raise Problem(400, f"there are several indexes; name one as `index`: {', '.join(names)}")
            name = names[0]
        if name in self.indexes:
            return self.indexes[name]
        if name in self.problems:
            raise TemporaryError(f'index "{name}" is not served: {self.problems[name]}')
        raise Problem(404, f'there is no index "{name}"; there is: {", ".join(names)}')

    async def find(self, name: str | None, run: str | None) -> Index:
        """That run of the index, which may be the one before the current; None: the current one. Raises Problem 410
        where that run is gone, and what `pick` raises."""
        if name is None or run is None:
            index = self.pick(name)
            if run is None:
                return index
            name = index.pointer.index
        current = self.indexes.get(name)
        if current is not None and current.pointer.run == run:
            return current
        # Read anew: another process may have seen a new run before this one did.
        newest = (await self._threads.store(self._store.pointers)).get(name)
        for pointer in (newest, newest and newest.previous):
            if pointer is not None and pointer.run == run and _needs(pointer) in self._models:
                return Index(pointer, self._models[_needs(pointer)])
        if newest is not None and newest.run == run:
            raise TemporaryError(f'run "{run}" of index "{name}" is not served yet: {self._reason(newest)}')
        raise _gone(name, run)

    async def using(self, name: str | None, call: Callable[[Index], Awaitable[T]], *, run: str | None = None) -> T:
        """`call` with the index; again with its successor where the collection was deleted meanwhile, unless it has
        to be that `run`: then it is Problem 410."""
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
        """Why requests should not be sent here; empty: they should.

        One index that cannot be served does not make the others unready: a bad publish would end them all."""
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

    async def _count(self, index: Index) -> int:
        return await self._threads.store(self._store.count, index.pointer.collection)

    async def _successor(self, index: Index) -> Index | None:
        name = index.pointer.index
        async with self._lock:
            if self.indexes.get(name) is index:
                await self._refresh()
        successor = self.indexes.get(name)
        return None if successor is index else successor

    async def _refresh(self) -> None:
        try:
            pointers = await self._threads.store(self._store.pointers)
        except ImgsearchError as error:
            if self.store_problem != str(error):
                logger.warning("reading the indexes: %s", error)
            self.store_problem = str(error)
            return
        self.store_problem = None
        self._replace({name: index for name, index in self.indexes.items() if name in pointers})
        new = [pointer for name, pointer in pointers.items() if not self._is_served(pointer)]
        self.problems = {pointer.index: self._reason(pointer) for pointer in new}
        # What needs no load goes first, so that it does not wait for what does.
        for pointer in sorted(new, key=lambda pointer: _needs(pointer) not in self._models):
            await self._serve(pointer)
        needed = {_needs(index.pointer) for index in self.indexes.values()}
        needed |= {_needs(pointer.previous) for pointer in pointers.values() if pointer.previous}
        self._models = {needs: model for needs, model in self._models.items() if needs in needed}
        self.started = True

    async def _serve(self, pointer: Pointer) -> None:
        model = await self._model(pointer)
        if model is None:
            self.problems = {**self.problems, pointer.index: self._reason(pointer)}
            return
        self._replace({**self.indexes, pointer.index: Index(pointer, model)})
        self.problems = {name: reason for name, reason in self.problems.items() if name != pointer.index}
        logger.info("index %s is served from run %s, %s images", pointer.index, pointer.run, pointer.images)

    def _is_served(self, pointer: Pointer) -> bool:
        index = self.indexes.get(pointer.index)
        return index is not None and index.pointer == pointer

    def _reason(self, pointer: Pointer) -> str:
        failure = self._failures.get(_needs(pointer))
        return failure.reason if failure else "its model is being loaded"

    def _replace(self, indexes: Mapping[str, Index]) -> None:
        if indexes != self.indexes:
            self.indexes = indexes
            self._metrics.serving(index.pointer for index in indexes.values())

    async def _model(self, pointer: Pointer) -> Model | None:
        """The model that the pointer needs; None where it cannot be had, and `_failures` says why."""
        needs = _needs(pointer)
        if needs in self._models:
            return self._models[needs]
        failure = self._failures.get(needs)
        if failure is not None and self._clock() < failure.until:
            return None
        try:
            model = self._models[needs] = await self._load(pointer)
        except Exception as error:  # a model is foreign code: it may raise anything, and the rest must go on
            known = isinstance(error, ImgsearchError)
            logger.warning("loading a model for index %s: %s", pointer.index, error, exc_info=not known)
            reason = str(error) or type(error).__name__
            self._failures[needs] = _Failure(reason, self._clock() + LOAD_AGAIN_SECONDS)
            return None
        self._failures.pop(needs, None)
        return model

    async def _load(self, pointer: Pointer) -> Model:
        logger.info("loading the model %s for run %s", pointer.model, pointer.run)
        encoder = await self._threads.load(self._load_encoder, pointer.model)
        if encoder.fingerprint != pointer.fingerprint:
            raise PermanentError(
                f"the weights of {pointer.model} here ({encoder.fingerprint[:12]}) are not those that run "
                f"{pointer.run} was made with ({pointer.fingerprint[:12]}); provide those, or index again"
            )
        return self._make_model(encoder)


def _gone(name: str, run: str) -> Problem:
    sentence = f'run "{run}" of index "{name}" is not there any more: search again, without the cursor or run='
    return Problem(410, sentence)


def _needs(pointer: Pointer) -> tuple[str, str]:
    return pointer.model, pointer.fingerprint
