from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.cli.metrics import RunMetrics
from controller.jobs.results import IndexReport
from controller.jobs.state import JobState, LostNode, Phase, Stage
from controller.jobs.usage import Gpu, Usage


def job(
    stage: Stage,
    phase: Phase = Phase.COMPLETE,
    *,
    completions: int = 1,
    succeeded: frozenset[int] = frozenset(),
    failed: frozenset[int] = frozenset(),
    active: int = 0,
    indexes: Mapping[int, IndexReport] | None = None,
    waiting: Mapping[str, int] | None = None,
    lost_nodes: Sequence[LostNode] = (),
    gpu_hours: float = 0.0,
) -> JobState:
    return JobState(
        name=f"team-r1-{stage}",
        spec_hash="abc",
        stage=stage,
        phase=phase,
        completions=completions,
        succeeded=succeeded,
        failed=failed,
        active=active,
        reason="",
        started="",
        finished="",
        indexes=indexes or {},
        waiting=waiting or {},
        lost_nodes=lost_nodes,
        usage=Usage(observed={Gpu(): gpu_hours}),
    )


PLANNED = job(Stage.PLAN, succeeded=frozenset({0}), indexes={0: IndexReport({"shards": 4, "images": 400})})


def samples_of(jobs: Mapping[Stage, JobState]) -> dict[str, float]:
    """Each sample after one look, written as name{label values}, the run and its index left out."""
    metrics = RunMetrics("r1", "photos")
    metrics.show(jobs)
    return samples(metrics)


def samples(metrics: RunMetrics) -> dict[str, float]:
    values = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            run, index, *others = sample.labels.values()
            assert (run, index) == ("r1", "photos")
            values[f"{sample.name.removeprefix('imgsearch_run_')}{{{','.join(others)}}}"] = sample.value
    return values


def test_before_the_first_look_there_are_metrics_and_no_figures() -> None:
    metrics = RunMetrics("r1", "photos")
    assert samples(metrics) == {}
    assert {family.name for family in metrics.registry.collect()} == {
        f"imgsearch_run_{name}" for name in ("state", "shards", "images", "waiting_pods", "lost_pods", "gpu_hours")
    }


def test_a_stage_is_in_one_state() -> None:
    values = samples_of({Stage.PLAN: PLANNED, Stage.EMBED: job(Stage.EMBED, Phase.SUSPENDED, completions=4)})
    states = {name: value for name, value in values.items() if name.startswith("state{")}
    assert len(states) == 2 * len(Phase)
    assert {name for name, value in states.items() if value} == {"state{plan,complete}", "state{embed,suspended}"}


def test_a_run_at_work_tells_its_shards_images_pods_and_gpu_hours() -> None:
    embed = job(
        Stage.EMBED,
        Phase.ACTIVE,
        completions=4,
        succeeded=frozenset({0}),
        failed=frozenset({2}),
        active=2,
        indexes={
            0: IndexReport({"images": 90, "bad": 10}),
            1: IndexReport(None, done=40, total=100),
            2: IndexReport({"error": "no such model"}),
        },
        waiting={"0/3 nodes have nvidia.com/gpu free": 1, "ErrImagePull": 2},
        lost_nodes=[LostNode("gpu-7", "2026-01-01T00:30:00Z", 2)],
        gpu_hours=1.5,
    )
    values = samples_of({Stage.PLAN: PLANNED, Stage.EMBED: embed})
    assert (
        values.items()
        >= {
            "shards{embed,planned}": 4,
            "shards{embed,done}": 1,
            "shards{embed,failed}": 1,
            "shards{embed,active}": 2,
            "images{planned}": 400,
            "images{finished}": 140,
            "images{bad}": 10,
            "waiting_pods{plan}": 0,
            "waiting_pods{embed}": 3,
            "lost_pods{plan}": 0,
            "lost_pods{embed}": 2,
            "gpu_hours{embed}": 1.5,
        }.items()
    )


def test_nothing_is_finished_or_bad_before_embedding() -> None:
    values = samples_of({Stage.PLAN: job(Stage.PLAN, Phase.ACTIVE, active=1)})
    assert {name: value for name, value in values.items() if name.startswith("images{")} == {"images{planned}": 0}


def test_a_job_that_is_removed_to_be_made_anew_is_not_told_of() -> None:
    """Else a stage that failed under an earlier command would count as failed while this one does it again."""
    metrics = RunMetrics("r1", "photos")
    failed_job = job(Stage.EMBED, Phase.FAILED, completions=4, failed=frozenset({2}))
    metrics.show({Stage.PLAN: PLANNED, Stage.EMBED: failed_job})
    assert samples(metrics)["state{embed,failed}"] == 1
    metrics.show({Stage.PLAN: PLANNED})
    assert not [name for name in samples(metrics) if "embed" in name]
