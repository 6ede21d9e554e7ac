"""Query vectors, by examples in a plane."""

from __future__ import annotations

import numpy as np
import pytest

from searcher.search.errors import Problem
from searcher.search.vectors import unit_vector, weighted_sum


def test_a_weighted_sum_has_length_one() -> None:
    x, y = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    assert weighted_sum([x, y], [3, 4]) == pytest.approx([0.6, 0.8])
    assert weighted_sum([x, y], [1, -1]) == pytest.approx([0.5**0.5, -(0.5**0.5)])


@pytest.mark.parametrize("noise", [0, 1e-8])
def test_parts_that_cancel_each_other_out_have_no_direction(noise: float) -> None:
    vector = np.array([1, 0], np.float32)
    with pytest.raises(Problem, match=r"^parts: .* zero"):
        weighted_sum([vector, vector + np.float32(noise)], [1, -1])


@pytest.mark.parametrize("size", [1e-300, 1, 1e300])
def test_an_embedding_of_any_length_is_a_direction(size: float) -> None:
    assert unit_vector([3 * size, 4 * size], 2) == pytest.approx([0.6, 0.8])


def test_an_embedding_must_have_a_direction_and_the_right_size() -> None:
    with pytest.raises(Problem, match=r"^embedding: .* zero"):
        unit_vector([0, 0], 2)
    with pytest.raises(Problem, match=r"^embedding: .* 3 .* 2$"):
        unit_vector([1, 2, 3], 2)
