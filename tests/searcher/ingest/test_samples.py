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
        one, other = Samples(f"r{run}", 30), Samples(f"r{run}", 30)
        one.add(records)
        other.add(records[:700])
        other.add(records[700:])
        drawn = [int(record.id) for record in one.records]
        assert drawn == [int(record.id) for record in other.records]
        assert len(set(drawn)) == 30
        assert one.vectors().ravel().tolist() == drawn
        means.append(np.mean(drawn))
    assert np.mean(means) == pytest.approx(499.5, abs=25)  # three times its standard deviation


def test_a_sample_does_not_keep_the_parts_that_it_comes_from() -> None:
    part = np.ones((1000, 8), np.float32)
    samples = Samples("r1", 1)
    samples.add([Record("a", {}, part[0])])
    assert samples.records[0].vector is not None
    assert samples.records[0].vector.base is None
