"""Evaluates an index: the recall of its searches against exact search, and, where the source has labels or captions,
the share of relevant results.

The queries are a sample of the index's own images, and texts made of their labels and captions. They are answered
like those of the search server. Exact scores come from the vectors in the run folder, so they reveal errors of the
store.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

import numpy as np

from imgsearch.captions import CAPTIONS, LABELS
from imgsearch.encoder import Encoder
from imgsearch.errors import PermanentError, UsageError
from imgsearch.runs import parts
from imgsearch.settings import EvaluateSettings
from imgsearch.stage import check_stopping
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, VectorStore
from imgsearch.vectors import Vectors, unit
from searcher.evaluation import figures
from searcher.evaluation.figures import CUTOFFS, Evaluated
from searcher.evaluation.queries import Survey, image_queries, text_queries
from searcher.evaluation.relevance import Relevance
from searcher.ingest.run_reader import RunReader
from searcher.recall.exact_search import ExactSearch
from searcher.recall.results import Nearest, search
from searcher.table.files import TableFiles

log = logging.getLogger(__name__)

RECALL_CUTOFFS = (1, 10, 100)
"""The numbers of results for which recall@k is measured."""


class Evaluation:
    """Evaluates indexes."""

    def __init__(
        self,
        settings: EvaluateSettings,
        *,
        storage: Storage,
        store: VectorStore,
        tables: TableFiles,
        load_encoder: Callable[[str], Encoder],
        stopping: threading.Event,
    ) -> None:
        self._settings = settings
        self._runs = RunReader(storage)
        self._store = store
        self._tables = tables
        self._load_encoder = load_encoder
        self._stopping = stopping

    def evaluate(self, pointer: Pointer) -> Evaluated:
        """Evaluates one index.

        Raises UsageError for a field that no image has, and PermanentError if the run folder or the weights of the
        model differ from those of the index."""
        survey = self._survey(pointer)
        labels = _field(self._settings.labels, LABELS, survey.fields, pointer)
        captions = _field(self._settings.captions, CAPTIONS, survey.fields - {labels}, pointer)
        queries = image_queries(survey, labels)
        texts = text_queries(survey, labels, captions, limit=self._settings.queries)
        vectors = unit(np.stack([vector for _, vector, _ in survey.sample]))
        if texts:  # without them, no model is loaded
            encoded = self._encoder(pointer).encode_texts([query.text or "" for query in texts])
            queries, vectors = [*queries, *texts], np.concatenate([vectors, encoded])
        # For all other images, the recall is 1 in any order.
        recall_cutoffs = [k for k in RECALL_CUTOFFS if k < survey.images - 1]
        query_images = [query.source_image for query in queries]
        results = search(
            self._nearest(pointer),
            vectors,
            query_images=query_images,
            k=max(*CUTOFFS, *recall_cutoffs),
            stopping=self._stopping,
        )
        judged_ids = [[neighbour.id for neighbour in found[: max(CUTOFFS)]] for found in results]
        records = self._store.get(pointer.collection, [*{id for ids in judged_ids for id in ids}])
        by_id = {record.id: record for record in records}
        exact = ExactSearch(
            vectors,
            query_images=query_images,
            k=max(recall_cutoffs, default=1),
            results=[[neighbour.id for neighbour in found] for found in results],
        )
        relevance = Relevance(queries, labels)
        for ids, rows, metadata in self._rows(pointer.run):
            exact.add(ids, rows)
            relevance.add(metadata)
        relevant = [relevance.judge(row, [by_id[id] for id in ids]) for row, ids in enumerate(judged_ids)]
        return Evaluated(
            pointer,
            labels,
            captions,
            figures=[
                *figures.recalls(queries, results, exact, recall_cutoffs),
                *figures.retrievals(queries, relevant, relevance),
            ],
            by_label=figures.by_label(queries, relevant, relevance),
        )

    def _nearest(self, pointer: Pointer) -> Nearest:
        """The searches of the search server: of the clusters of the table, if it has some, or of the store."""
        try:
            document = self._tables.document(pointer.run)
            if document is not None and document.compared:
                return partial(self._tables.open(document).nearest, compared=document.compared)
        except PermanentError as error:
            log.warning("the table of run %s cannot be read, so the store is searched: %s", pointer.run, error)
        return lambda queries, k: self._store.nearest(pointer.collection, queries, k=max(pointer.candidates, k))

    def _survey(self, pointer: Pointer) -> Survey:
        survey = Survey()
        labels = {self._settings.labels} if self._settings.labels else set(LABELS)
        for ids, vectors, metadata in self._rows(pointer.run):
            survey.add(ids, vectors, metadata, labels=labels, size=self._settings.queries)
        if not survey.images:
            raise PermanentError(f"run {pointer.run} of index {pointer.index} has no vectors in its folder")
        return survey

    def _rows(self, run: str) -> Iterator[tuple[list[str], Vectors, list[str]]]:
        """Ids, vectors (rows, dim) and metadata (JSON) of all images, part by part."""
        for table in self._runs.tables(self._runs.shards(self._runs.plan(run))):
            check_stopping(self._stopping)
            yield table["id"].to_pylist(), parts.vectors(table), table["metadata"].to_pylist()

    def _encoder(self, pointer: Pointer) -> Encoder:
        encoder = self._load_encoder(pointer.model)
        pointer.check_weights(encoder.fingerprint)
        return encoder


def _field(name: str | None, usual: Sequence[str], fields: Collection[str], pointer: Pointer) -> str | None:
    """The field with this name, or else the first usual one that exists. Raises UsageError for a name without field."""
    if name is not None and name not in fields:
        raise UsageError(
            f"no image of index {pointer.index} has the field {name!r}; the fields are: "
            f"{', '.join(sorted(fields)) or 'none'}"
        )
    return name or next((field for field in usual if field in fields), None)
