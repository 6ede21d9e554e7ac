"""Random samples of the records."""

from __future__ import annotations

import numpy as np
import pytest

from imgsearch.stores import Record
from searcher.ingest.samples import Samples


def test_a_sample_is_fair_and_the_same_each_time() -> None:
    records = [Record(str(number), {}, np.full(1, number, np.float32)) for number in range(1000)]
    means = []
    for run in range(50):
        samples, same_samples = Samples(f"r{run}", 30), Samples(f"r{run}", 30)
        samples.add(records)
        same_samples.add(records[:700])
        same_samples.add(records[700:])
        ids = [int(record.id) for record in samples.records]
        assert ids == [int(record.id) for record in same_samples.records]
        assert len(set(ids)) == 30
        assert samples.vectors().ravel().tolist() == ids
        means.append(np.mean(ids))
    assert np.mean(means) == pytest.approx(499.5, abs=25)  # three times its standard deviation


def test_a_sample_does_not_keep_the_parts_that_it_comes_from() -> None:
    vectors = np.ones((1000, 8), np.float32)
    samples = Samples("r1", 1)
    samples.add([Record("a", {}, vectors[0])])
    assert samples.records[0].vector is not None
    assert samples.records[0].vector.base is None
