"""The result of an ingest as files: `report.json`, and the list of bad images as CSV. No I/O."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from imgsearch.runs.documents import Plan, Report
from imgsearch.runs.parts import BadRow
from imgsearch.stores import Pointer
from searcher.ingest.run_reader import Shard, same_model
from searcher.recall.measure import Measured

BAD_EXAMPLES = 20
"""The most examples of bad images in a report, and the most reasons."""


@dataclass(frozen=True)
class Result:
    """The result of one ingest."""

    collection: str
    pointer: Pointer
    """The pointer that the index has then."""
    rows: int
    added: int
    bad: list[BadRow]
    sampled: int
    found_itself: int
    """Samples that a search found."""
    measured: Measured
    recall_warning: str
    seconds: float
    stages: dict[str, float]


def report(plan: Plan, shards: Sequence[Shard], result: Result) -> Report:
    """The report of a run."""
    model = same_model(shards)
    own_shards = [shard.done for shard in shards if shard.folder.run == plan.run]
    reasons = Counter(f"{row.stage}: {row.reason}" for row in result.bad)
    return Report(
        run=plan.run,
        index=plan.index,
        source=plan.source,
        model=plan.model,
        fingerprint=model.fingerprint,
        dim=model.dim,
        collection=result.collection,
        published=_published(plan.run, result.pointer),
        shards=plan.shards,
        images=result.rows,
        bad=len(result.bad),
        kept=plan.kept,
        removed=plan.removed,
        skipped=plan.skipped,
        bad_reasons=dict(reasons.most_common(BAD_EXAMPLES)),
        bad_examples=[_entry(row) for row in result.bad[:BAD_EXAMPLES]],
        embed_seconds=round(sum(done.seconds for done in own_shards), 3),
        embed_stages=_sum([done.stages for done in own_shards]),
        embed_bytes=sum(done.bytes for done in own_shards),
        ingest_seconds=round(result.seconds, 3),
        ingest_stages=result.stages,
        vectors_added=result.added,
        verified={"counted": result.rows, "sampled": result.sampled, "found_itself": result.found_itself},
        recall=result.measured.figures,
        candidates=result.measured.candidates,
        compared=result.measured.compared,
        recall_warning=result.recall_warning,
    )


def _published(run: str, pointer: Pointer) -> str:
    """The time at which the run was published: an index that serves a later run can be rolled back to it."""
    previous = pointer.previous
    return previous.published if previous and previous.run == run else pointer.published


def bad_csv(rows: Sequence[BadRow]) -> bytes:
    """The bad images as CSV, with a header."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, ["key", "stage", "reason"])
    writer.writeheader()
    writer.writerows(map(_entry, rows))
    return sink.getvalue().encode()


def _entry(row: BadRow) -> dict[str, str]:
    return {"key": row.key, "stage": row.stage, "reason": row.reason}


def _sum(stages: Sequence[dict[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for seconds in stages:
        total.update(seconds)
    return {stage: round(seconds, 3) for stage, seconds in total.items()}
