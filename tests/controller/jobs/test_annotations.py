"""Annotations of a Job."""

from __future__ import annotations

import json

from controller.jobs.annotations import Overflow


def test_of_many_shards_that_failed_only_the_first_say_why() -> None:
    annotation = Overflow(failed=dict.fromkeys(range(200), "x" * 9000)).to_json()
    assert len(json.dumps(annotation)) < 60_000
    assert Overflow.from_json(annotation).failed.keys() == {*range(200)}
