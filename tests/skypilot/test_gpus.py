"""SkyPilot's look at a cluster, and our own at the same nodes and pods: where they agree, and where they do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller.backends.skypilot.gpus import SkyGpuFinder
from controller.gpus import nodes as gpu_nodes
from controller.gpus.accelerators import AUTOSCALERS, Kind
from controller.gpus.nodes import NodeMatch, NoMatchingNode, NotAllowed
from imgsearch.errors import PermanentError, TemporaryError, UsageError
from tests.skypilot.cluster import CONTEXT, GFD, GKE, GPU, KARPENTER, SKYPILOT, Cluster, Object, kubeconfig, node, pod

L4 = Kind("L4")
ROOT = Path(__file__).resolve().parents[2]
LOOK = """
from controller.backends.skypilot.gpus import SkyGpuFinder
assert [offer.accelerator for offer in SkyGpuFinder().offers()] == ["unknown"]
from sky.utils import rich_utils
with rich_utils.safe_status("looking"):
    pass
"""
SPOT = {"cloud.google.com/gke-spot": "true"}


def gke() -> list[Object]:
    return [
        node("a", {GKE: "nvidia-l4"}, 2),
        node("b", {GKE: "nvidia-l4", **SPOT}, 1),
        node("c", {GKE: "nvidia-tesla-t4"}, 4),
        node("d", {GKE: "nvidia-a100-80gb"}, 8),
        node("e", {}, 0),
    ]


def gfd() -> list[Object]:
    return [
        node("a", {GFD: "NVIDIA-L4"}, 2),
        node("b", {GFD: "NVIDIA-L4"}, 1),
        node("c", {GFD: "Tesla-T4"}, 4),
        node("d", {GFD: "NVIDIA-A100-SXM4-80GB"}, 8),
        node("e", {}, 0),
    ]


def karpenter() -> list[Object]:
    return [
        node("a", {KARPENTER: "l4"}, 2),
        node("b", {KARPENTER: "l4", "karpenter.sh/capacity-type": "spot"}, 1),
        node("c", {KARPENTER: "t4"}, 4),
        node("d", {KARPENTER: "a100-80gb"}, 8),
        node("e", {}, 0),
    ]


def skypilot() -> list[Object]:
    return [
        node("a", {SKYPILOT: "l4"}, 2),
        node("b", {SKYPILOT: "l4"}, 1),
        node("c", {SKYPILOT: "t4"}, 4),
        node("d", {SKYPILOT: "a100-80gb"}, 8),
        node("e", {}, 0),
    ]


PODS = [
    pod("one", "a", 1),
    pod("done", "a", 1, phase="Succeeded"),
    pod("starting", "c", 3, phase="Pending"),
    pod("waiting", None, 8, phase="Pending"),
    pod("unlike", "e", 0),
]


@pytest.mark.parametrize("nodes", [gke(), gfd(), karpenter(), skypilot()], ids=["gke", "gfd", "karpenter", "skypilot"])
class TestParity:
    """Clusters whose nodes are all labelled in the same way."""

    def test_both_see_the_same_gpus(self, cluster: Cluster, nodes: list[Object]) -> None:
        cluster.nodes, cluster.pods = nodes, PODS
        assert SkyGpuFinder().offers() == gpu_nodes.offers(nodes, PODS)
        assert [offer.accelerator for offer in SkyGpuFinder().offers()] == ["A100-80GB", "L4", "T4"]

    def test_both_see_the_same_gpus_where_pods_may_not_be_listed(self, cluster: Cluster, nodes: list[Object]) -> None:
        cluster.nodes, cluster.status_codes = nodes, {"pods": 403}
        assert SkyGpuFinder().offers() == gpu_nodes.offers(nodes, None)

    @pytest.mark.parametrize("kind", [L4, Kind("l4"), Kind("T4"), Kind("A100-80GB"), Kind("A100")])
    def test_both_place_alike(self, cluster: Cluster, nodes: list[Object], kind: Kind) -> None:
        cluster.nodes, cluster.pods = nodes, PODS
        assert SkyGpuFinder().match(kind) == gpu_nodes.match(nodes, PODS, kind)

    @pytest.mark.parametrize("kind", [Kind("H100"), Kind("FOO")])
    def test_both_know_what_is_not_there(self, cluster: Cluster, nodes: list[Object], kind: Kind) -> None:
        cluster.nodes = nodes
        with pytest.raises(NoMatchingNode):
            gpu_nodes.match(nodes, [], kind)
        with pytest.raises(NoMatchingNode):
            SkyGpuFinder().match(kind)

    def test_both_leave_out_nodes_that_take_no_pods(self, cluster: Cluster, nodes: list[Object]) -> None:
        """Trap 9: SkyPilot lists nodes that are not Ready as well, and calls cordoned ones large enough."""
        labels = nodes[0]["metadata"]["labels"]
        cluster.nodes = [node("a", labels, 2, ready=False), node("b", labels, 4, cordoned=True), node("c", labels, 1)]
        assert SkyGpuFinder().offers() == gpu_nodes.offers(cluster.nodes, [])
        assert SkyGpuFinder().match(L4) == gpu_nodes.match(cluster.nodes, [], L4)
        assert SkyGpuFinder().match(L4).total == 1

    def test_both_count_what_is_free_on_a_tainted_node(self, cluster: Cluster, nodes: list[Object]) -> None:
        """SkyPilot's node info calls it busy; the pods of a run may tolerate what SkyPilot's do not."""
        labels = nodes[0]["metadata"]["labels"]
        taint = {"key": "dedicated", "value": "search", "effect": "NoSchedule"}
        cluster.nodes = [node("a", labels, 2, taints=[taint])]
        assert SkyGpuFinder().offers() == gpu_nodes.offers(cluster.nodes, [])
        assert SkyGpuFinder().offers()[0].free == 2


class TestDifferences:
    """Where SkyPilot 0.14.1 is known to see something else: a test that fails here is good news."""

    def test_of_two_kinds_of_labels_skypilot_reads_one(self, cluster: Cluster) -> None:
        """Trap 2."""
        cluster.nodes = [node("a", {SKYPILOT: "l4"}), node("b", {GFD: "NVIDIA-A100-SXM4-40GB"})]
        assert [offer.accelerator for offer in gpu_nodes.offers(cluster.nodes, [])] == ["A100", "L4"]
        assert [offer.accelerator for offer in SkyGpuFinder().offers()] == ["L4", "unknown"]
        assert gpu_nodes.match(cluster.nodes, [], Kind("A100")).total == 1
        with pytest.raises(NoMatchingNode):
            SkyGpuFinder().match(Kind("A100"))

    def test_of_two_products_that_are_one_accelerator_skypilot_takes_the_first(self, cluster: Cluster) -> None:
        """Trap 3."""
        cluster.nodes = [node("a", {GFD: "NVIDIA-L40S"}, 2), node("b", {GFD: "NVIDIA-L40S-PCIe"}, 4)]
        own_match = gpu_nodes.match(cluster.nodes, [], Kind("L40S"))
        sky_match = SkyGpuFinder().match(Kind("L40S"))
        assert (own_match.labels, own_match.total) == ({GFD: ("NVIDIA-L40S", "NVIDIA-L40S-PCIe")}, 6)
        assert (sky_match.labels, sky_match.total) == ({GFD: ("NVIDIA-L40S",)}, 2)

    def test_skypilot_takes_slices_for_gpus(self, cluster: Cluster) -> None:
        """Trap 4."""
        cluster.nodes = [
            node("whole", {GFD: "NVIDIA-H100-80GB-HBM3"}, 8),
            node("sliced", {GFD: "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"}, 7),
        ]
        assert [(offer.accelerator, offer.total) for offer in gpu_nodes.offers(cluster.nodes, [])] == [("H100", 8)]
        assert [(offer.accelerator, offer.total) for offer in SkyGpuFinder().offers()] == [("H100-80GB", 15)]

    def test_a_name_with_more_memory_in_it_is_found_all_the_same(self, cluster: Cluster) -> None:
        """Trap 4: SkyPilot reads H100-80GB from the label of GPU feature discovery, and finds it as H100, too."""
        cluster.nodes = [node("a", {GFD: "NVIDIA-H100-80GB-HBM3"}, 8)]
        for name in ("H100", "H100-80GB"):
            assert SkyGpuFinder().match(Kind(name)) == gpu_nodes.match(cluster.nodes, [], Kind(name))

    def test_with_one_amd_gpu_skypilot_sees_none_of_nvidia(self, cluster: Cluster) -> None:
        """Trap 5."""
        cluster.nodes = [
            node("a", {SKYPILOT: "l4"}, 2),
            node("b", {SKYPILOT: "mi300"}, 8, resource="amd.com/gpu"),
        ]
        own_offers = [(offer.accelerator, offer.total, offer.resource) for offer in gpu_nodes.offers(cluster.nodes, [])]
        sky_offers = [(offer.accelerator, offer.total, offer.resource) for offer in SkyGpuFinder().offers()]
        assert own_offers == [("L4", 2, GPU), ("MI300", 8, "amd.com/gpu")]
        assert sky_offers == [("MI300", 8, "amd.com/gpu")]

    def test_with_an_autoscaler_skypilot_knows_its_label_alone(self, cluster: Cluster) -> None:
        cluster.nodes = [node("a", {GKE: "nvidia-l4"}, 2)]
        own_match = gpu_nodes.match(cluster.nodes, [], L4, autoscaler="karpenter")
        sky_match = SkyGpuFinder(autoscaler="karpenter").match(L4)
        assert (own_match.labels, own_match.total) == ({GKE: ("nvidia-l4",), KARPENTER: ("l4",)}, 2)
        assert (sky_match.labels, sky_match.total) == ({KARPENTER: ("l4",)}, 0)


class TestAutoscalers:
    @pytest.mark.parametrize("autoscaler", list(AUTOSCALERS))
    @pytest.mark.parametrize("name", ["H100", "A100-80GB", "L4", "T4"])
    def test_both_write_a_label_that_no_node_has_yet_alike(self, cluster: Cluster, autoscaler: str, name: str) -> None:
        kind = Kind(name)
        match = SkyGpuFinder(autoscaler=autoscaler).match(kind)
        assert match == gpu_nodes.match([], [], kind, autoscaler=autoscaler)
        assert match.total == match.free == 0

    def test_with_one_nodes_that_are_there_count_as_well(self, cluster: Cluster) -> None:
        cluster.nodes = [node("a", {GKE: "nvidia-l4"}, 2)]
        match = SkyGpuFinder(autoscaler="gke").match(L4)
        assert match == NodeMatch(L4, GPU, {GKE: ("nvidia-l4",)}, total=2, free=2)

    def test_it_holds_for_its_own_finder(self, cluster: Cluster) -> None:
        SkyGpuFinder(autoscaler="gke").match(L4)
        with pytest.raises(NoMatchingNode):
            SkyGpuFinder().match(L4)

    def test_one_that_is_not_known_is_refused_at_once(self, cluster: Cluster) -> None:
        with pytest.raises(UsageError, match=r"'magic'.* gke, karpenter"):
            SkyGpuFinder(autoscaler="magic")
        assert not cluster.requests


class TestLooks:
    def test_each_question_is_a_look_of_its_own(self, cluster: Cluster) -> None:
        """Trap 1: SkyPilot would answer from its cache for ever."""
        cluster.nodes = [node("a", {GKE: "nvidia-l4"}, 2)]
        finder = SkyGpuFinder()
        assert finder.offers()[0].free == finder.match(L4).free == 2
        cluster.pods = [pod("one", "a", 2)]
        assert finder.offers()[0].free == finder.match(L4).free == 0
        cluster.nodes = []
        assert finder.offers() == []

    def test_that_all_gpus_are_busy_is_no_error(self, cluster: Cluster) -> None:
        cluster.nodes, cluster.pods = [node("a", {GKE: "nvidia-l4"}, 2)], [pod("one", "a", 2)]
        match = SkyGpuFinder().match(L4)
        assert (match.total, match.free) == (2, 0)

    def test_a_gpu_that_no_label_names_is_shown(self, cluster: Cluster) -> None:
        cluster.nodes = [node("a", {}, 2)]
        assert SkyGpuFinder().offers() == gpu_nodes.offers(cluster.nodes, [])
        with pytest.raises(NoMatchingNode, match="Could not detect GPU labels"):
            SkyGpuFinder().match(L4)

    def test_a_named_context_is_looked_at_and_not_the_current_one(
        self, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other_cluster = Cluster()
        other_cluster.nodes = [node("a", {GKE: "nvidia-tesla-t4"}, 1)]
        servers = {CONTEXT: cluster.url, "other": other_cluster.url}
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "two", servers, current=CONTEXT)))
        assert [offer.accelerator for offer in SkyGpuFinder("other").offers()] == ["T4"]
        assert SkyGpuFinder().offers() == []
        other_cluster.close()

    def test_nothing_is_printed(self, cluster: Cluster) -> None:
        """Trap 7: `<sky-payload>` lines; and SkyPilot logs to stdout."""
        cluster.nodes = [node("a", {SKYPILOT: "L4"})]  # which would have to be l4
        completed = subprocess.run([sys.executable, "-c", LOOK], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (completed.stdout, completed.stderr, completed.returncode) == ("", "", 0)

    def test_a_label_that_skypilot_cannot_read_is_a_clear_error(self, cluster: Cluster) -> None:
        cluster.nodes = [node("a", {GKE: "nvidia-l4"}), node("b", {GKE: "strange"})]
        with pytest.raises(
            PermanentError, match=f"cannot read the nodes of {CONTEXT}: Invalid accelerator name .*strange"
        ):
            SkyGpuFinder().offers()

    def test_home_is_left_clean(self, cluster: Cluster, home: Path) -> None:
        cluster.nodes, cluster.pods = gke(), PODS
        SkyGpuFinder().offers()
        SkyGpuFinder().match(L4)
        assert [path.name for path in home.iterdir()] == [".imgsearch"]
        assert (home / ".imgsearch" / "sky" / ".sky" / "user_hash").exists()
        assert os.environ["HOME"] == str(home)

    def test_settings_of_skypilot_in_the_persons_home_have_no_say(self, cluster: Cluster, home: Path) -> None:
        config = home / ".sky" / "config.yaml"
        config.parent.mkdir()
        try:
            config.write_text("kubernetes: {autoscaler: gke}\n")
            with pytest.raises(NoMatchingNode):
                SkyGpuFinder().match(L4)
            assert config.read_text() == "kubernetes: {autoscaler: gke}\n"
        finally:
            config.unlink()
            config.parent.rmdir()

    def test_it_does_not_phone_home(self, cluster: Cluster) -> None:
        from sky.utils import env_options

        SkyGpuFinder()
        assert env_options.Options.DISABLE_LOGGING.get()

    def test_no_api_server_of_skypilot_is_started(self, cluster: Cluster, home: Path) -> None:
        cluster.nodes = gke()
        SkyGpuFinder().offers()
        SkyGpuFinder().match(L4)
        assert not [*home.rglob("api_server")]


class TestErrors:
    def test_an_account_that_may_not_list_nodes_hears_which_right_is_missing(self, cluster: Cluster) -> None:
        cluster.status_codes = {"nodes": 403}
        with pytest.raises(NotAllowed, match=f"list the nodes of {CONTEXT}: .* ClusterRole .* list on nodes"):
            SkyGpuFinder().offers()
        with pytest.raises(NotAllowed, match="list on nodes"):
            SkyGpuFinder().match(L4)

    def test_without_the_right_to_list_pods_only_the_free_gpus_are_not_known(
        self, cluster: Cluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        cluster.nodes, cluster.status_codes = [node("a", {GKE: "nvidia-l4"}, 2)], {"pods": 403}
        finder = SkyGpuFinder()
        assert [(offer.total, offer.free) for offer in finder.offers()] == [(2, None)]
        match = finder.match(L4)
        assert (match.total, match.free) == (2, None)
        messages = [record.message for record in caplog.records if record.name == "controller.backends.skypilot.gpus"]
        assert len(messages) == 1
        assert "list the pods of all namespaces" in messages[0]
        assert "list on pods" in messages[0]

    def test_a_stranger_is_told_to_log_in(self, cluster: Cluster) -> None:
        cluster.status_codes = {"nodes": 401}
        with pytest.raises(UsageError, match=f"401.*{CONTEXT}"):
            SkyGpuFinder().offers()

    @pytest.mark.parametrize("resource", ["nodes", "pods"])
    def test_a_cluster_in_trouble_is_a_temporary_error(self, cluster: Cluster, resource: str) -> None:
        cluster.nodes, cluster.status_codes = [node("a", {GKE: "nvidia-l4"})], {resource: 503}
        with pytest.raises(TemporaryError, match=f"the cluster {CONTEXT} does not answer .*Service Unavailable"):
            SkyGpuFinder().match(L4)

    def test_a_cluster_that_is_not_there_is_a_temporary_error(self, cluster: Cluster) -> None:
        """Not NoMatchingNode: SkyPilot's error for it is a kind of `no resources`."""
        cluster.close()
        with pytest.raises(TemporaryError, match=r"does not answer .*refused.*try again when it is back"):
            SkyGpuFinder().match(L4)

    def test_an_answer_that_breaks_off_is_a_temporary_error(self, cluster: Cluster) -> None:
        cluster.nodes, cluster.cuts_replies = gke(), True
        with pytest.raises(TemporaryError, match=f"the cluster {CONTEXT} sent an incomplete response"):
            SkyGpuFinder().offers()

    def test_a_gpu_that_no_node_has_is_named(self, cluster: Cluster) -> None:
        cluster.nodes = gke()
        with pytest.raises(NoMatchingNode, match=r"no node for H100 \(Could not find any node .* with H100\): "):
            SkyGpuFinder().match(Kind("H100"))

    def test_a_cluster_without_gpus_says_so(self, cluster: Cluster) -> None:
        cluster.nodes = [node("a", {}, 0)]
        with pytest.raises(NoMatchingNode, match="Could not detect GPU/TPU resources"):
            SkyGpuFinder().match(L4)

    def test_a_context_that_is_not_there_is_named(self, cluster: Cluster) -> None:
        with pytest.raises(UsageError, match=f"no context 'nowhere': it has {CONTEXT}"):
            SkyGpuFinder("nowhere")

    def test_without_a_kubeconfig_there_is_no_cluster(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
        with pytest.raises(UsageError, match="set KUBECONFIG"):
            SkyGpuFinder()

    def test_tracebacks_stay_whole(self, cluster: Cluster) -> None:
        cluster.nodes = gke()
        with pytest.raises(NoMatchingNode):
            SkyGpuFinder().match(Kind("H100"))
        assert not hasattr(sys, "tracebacklimit")


def test_what_the_fake_cluster_lists_is_json(cluster: Cluster) -> None:
    """A pod that has ended is not selected: SkyPilot leaves that to the server."""
    cluster.pods = PODS
    _, body = cluster.list("pods", "status.phase!=Succeeded,status.phase!=Failed")
    assert [item["metadata"]["name"] for item in json.loads(json.dumps(body))["items"]] == [
        "one",
        "starting",
        "waiting",
        "unlike",
    ]
