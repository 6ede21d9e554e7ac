"""Clusters of bare machines: SkyPilot makes them, and the person's kubeconfig gains and loses one context."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from controller.backends.kubeconfig import Kubeconfig
from controller.backends.skypilot.pools import ProvisioningFailed, ensure_pool, remove_pool
from imgsearch.errors import TemporaryError, UsageError
from tests.skypilot.cluster import kubeconfig
from tests.skypilot.machines import Machines


@dataclass(frozen=True)
class Desk:
    """A person's machine: a kubeconfig whose current context is `work`, and machines that they may make a pool of."""

    config: Path
    machines: Machines
    file: Path
    sky: Path

    def up(self, name: str, file: Path | None = None) -> str:
        return ensure_pool(name, file, kubeconfig=str(self.config))

    def down(self, name: str) -> None:
        remove_pool(name, kubeconfig=str(self.config))

    def read(self) -> dict[str, object]:
        found: dict[str, object] = yaml.safe_load(self.config.read_text())
        return found

    def contexts(self) -> list[str]:
        return Kubeconfig.of(str(self.config)).contexts()


@pytest.fixture
def desk(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    machines = Machines(tmp_path)
    machines.add("10.0.0.5")
    monkeypatch.setenv("PATH", machines.path)
    config = kubeconfig(
        tmp_path / "config", {"work": "https://10.1.1.1:6443", "home": "https://x:6443"}, current="work"
    )
    sky = home / ".imgsearch" / "sky"
    yield Desk(config, machines, machines.pools(tmp_path / "pools.yaml", lab=["10.0.0.5"]), sky)
    for left in (sky / ".sky" / "ssh_node_pools.yaml", sky / ".kube" / "config"):
        left.unlink(missing_ok=True)
    shutil.rmtree(sky / ".sky" / "ssh_node_pools_info", ignore_errors=True)


def test_a_context_that_is_there_is_the_pool(desk: Desk) -> None:
    assert desk.up("home") == "home"
    kubeconfig(desk.config, {"ssh-lab": "https://127.0.0.1:6444"}, current=None)
    assert desk.up("lab") == "ssh-lab"
    assert not desk.machines.asked("10.0.0.5")


def test_a_pool_that_nobody_has_heard_of_needs_a_file(desk: Desk) -> None:
    with pytest.raises(UsageError, match=r"no context lab.*\(work, home\).*controller pools up lab --file"):
        desk.up("lab")


class TestUp:
    def test_the_kubeconfig_gets_its_context_and_stays_as_it_was(self, desk: Desk) -> None:
        before = desk.read()
        assert desk.up("lab", desk.file) == "ssh-lab"
        after = desk.read()
        for part in Kubeconfig.PARTS:
            assert after[part][:-1] == before[part]  # type: ignore[index]
            assert after[part][-1]["name"] == "ssh-lab"  # type: ignore[index]
        assert {key: after[key] for key in after if key not in Kubeconfig.PARTS} == {
            key: before[key] for key in before if key not in Kubeconfig.PARTS
        }
        assert after["current-context"] == "work"
        assert "get.k3s.io" in desk.machines.asked("10.0.0.5")
        assert desk.up("lab") == "ssh-lab"

    def test_its_tunnel_finds_what_skypilot_has_kept_for_it(self, desk: Desk) -> None:
        desk.up("lab", desk.file)
        (user,) = [each["user"] for each in desk.read()["users"] if each["name"] == "ssh-lab"]  # type: ignore[attr-defined]
        assert user["exec"]["env"] == [{"name": "HOME", "value": str(desk.sky)}]
        assert str(desk.machines.key) in user["exec"]["args"]
        assert (desk.sky / ".sky" / "ssh_node_pools_info" / "ssh-lab-cert.pem").exists()

    def test_its_port_is_nobody_elses(self, desk: Desk) -> None:
        """SkyPilot overlooks who listens on all addresses, and other clusters' tunnels that are down: the context would
        lead to them."""
        kubeconfig(desk.config, {"ssh-other": "https://127.0.0.1:6444"}, current=None)
        with ExitStack() as stack:
            with suppress(OSError):  # somebody does so already
                stack.enter_context(socket.create_server(("", 6443)))
            desk.up("lab", desk.file)
        assert Kubeconfig.of(str(desk.config)).servers()["ssh-lab"] == "https://127.0.0.1:6445"

    def test_home_is_left_clean(self, desk: Desk, home: Path) -> None:
        desk.up("lab", desk.file)
        assert [path.name for path in home.iterdir()] == [".imgsearch"]
        assert not (desk.sky / ".sky" / "api_server").exists()

    def test_the_person_hears_how_far_it_is(self, desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
        heard: list[str] = []
        ensure_pool("lab", desk.file, kubeconfig=str(desk.config), report=heard.append)
        assert "10.0.0.5" in heard[0]
        assert "SSH connection established to head node 10.0.0.5." in heard
        assert not [line for line in heard if "sky-payload" in line or "\x1b" in line]
        assert capfd.readouterr().out == ""

    def test_a_machine_that_does_not_answer_is_named_with_what_ssh_says(self, desk: Desk) -> None:
        desk.machines.remove("10.0.0.5")
        with pytest.raises(ProvisioningFailed) as raised:
            desk.up("lab", desk.file)
        message = str(raised.value)
        assert "`sky ssh up` of lab" in message
        assert message.endswith(
            ": Failed to SSH to head node (10.0.0.5) (ssh: connect to host 10.0.0.5 port 22: Connection refused)"
        )
        assert desk.contexts() == ["work", "home"]
        assert desk.read()["current-context"] == "work"

    def test_an_installer_that_fails_is_named_with_its_words(self, desk: Desk) -> None:
        desk.machines.fails("10.0.0.5", "installed", "curl: (6) Could not resolve host: get.k3s.io")
        with pytest.raises(
            ProvisioningFailed, match=r"Failed to deploy K3s on head node .*\(curl: \(6\) Could not res"
        ):
            desk.up("lab", desk.file)

    def test_an_installer_that_was_not_downloaded_leaves_no_kubeconfig(self, desk: Desk) -> None:
        """`curl … | sh` ends well then, and SkyPilot believes it."""
        desk.machines.forget("10.0.0.5")
        with pytest.raises(ProvisioningFailed, match=r"\(scp: \.kube/config: No such file or directory\)$"):
            desk.up("lab", desk.file)

    def test_a_password_is_not_told(self, desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
        desk.file.write_text(desk.file.read_text() + "  password: hunter2\n")
        desk.machines.fails("10.0.0.5", "installed", "sudo: 3 incorrect password attempts")
        heard: list[str] = []
        with pytest.raises(ProvisioningFailed, match="incorrect password attempts"):
            ensure_pool("lab", desk.file, kubeconfig=str(desk.config), report=heard.append)
        assert "hunter2" in desk.machines.asked("10.0.0.5")
        assert "hunter2" not in "".join(heard) + caplog.text

    def test_gpus_that_kubernetes_will_not_see_are_a_warning(
        self, desk: Desk, caplog: pytest.LogCaptureFixture
    ) -> None:
        desk.machines.add("10.0.0.5", gpu="NVIDIA L4")
        assert desk.up("lab", desk.file) == "ssh-lab"
        told = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert "pool lab: Failed to install GPU Operator." in told
        assert not [line for line in told if "Prometheus" in line and "Failed to install" in line]

    def test_it_can_be_tried_again(self, desk: Desk) -> None:
        desk.machines.fails("10.0.0.5", "installed", "curl: (6) Could not resolve host: get.k3s.io")
        with pytest.raises(ProvisioningFailed):
            desk.up("lab", desk.file)
        desk.machines.remove("10.0.0.5")
        desk.machines.add("10.0.0.5", processes="sshd\nk3s-server")
        assert desk.up("lab", desk.file) == "ssh-lab"

    @pytest.mark.parametrize("process", ["kubelet", "kubelite", "k3s-server", "/etc/kubernetes/kubelet.conf"])
    def test_a_machine_with_a_kubernetes_is_left_alone(self, desk: Desk, process: str) -> None:
        desk.machines.add("10.0.0.5", processes=f"sshd\n{process}")
        with pytest.raises(UsageError, match=f"10.0.0.5 already runs Kubernetes .{process}."):
            desk.up("lab", desk.file)
        assert "get.k3s.io" not in desk.machines.asked("10.0.0.5")
        with pytest.raises(UsageError, match=r"pool lab .*\(its pools: "):
            desk.down("lab")

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("lib: {hosts: [10.0.0.5]}", "Cluster 'lab' not found in SSH Node Pools file"),
            ("lab: {hosts: []}", "No hosts defined in cluster lab"),
            ("lab: {hosts: [10.0.0.5], identity_file: /none}", "SSH Identity File Missing: /none"),
            ("lab: {hosts: [{user: me}]}", "has no host with an ip"),
            ("lab:", "pools and their hosts"),
            ("[lab]", "pools and their hosts"),
            ("lab: {hosts: [", "Error loading SSH Node Pools file"),
        ],
    )
    def test_a_file_that_is_wrong_is_refused_at_once(self, desk: Desk, text: str, says: str) -> None:
        desk.file.write_text(text)
        with pytest.raises(UsageError, match=says):
            desk.up("lab", desk.file)
        assert not desk.machines.asked("10.0.0.5")

    def test_a_file_that_is_not_there_is_named(self, desk: Desk, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"SSH Node Pools file not found: .*/none\.yaml"):
            desk.up("lab", tmp_path / "none.yaml")

    def test_programs_that_are_missing_are_named(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(desk.machines.programs))
        with pytest.raises(UsageError, match=r"install jq, kubectl$"):
            desk.up("lab", desk.file)


class TestDown:
    def test_the_kubeconfig_is_what_it_was(self, desk: Desk) -> None:
        before = desk.read()
        desk.up("lab", desk.file)
        desk.down("lab")
        assert desk.read() == before
        assert "k3s-uninstall.sh" in desk.machines.asked("10.0.0.5")
        with pytest.raises(UsageError, match=r"pool lab .*\(.* none\)"):
            desk.down("lab")

    def test_what_was_the_current_context_is_not_replaced_by_another(self, desk: Desk) -> None:
        desk.up("lab", desk.file)
        desk.config.write_text(desk.config.read_text().replace("current-context: work", "current-context: ssh-lab"))
        desk.down("lab")
        assert "current-context" not in desk.read()
        assert desk.contexts() == ["work", "home"]

    @pytest.mark.parametrize("process", ["kubelet", "/var/lib/rancher/rke2"])
    def test_a_machine_with_another_kubernetes_is_left_alone(self, desk: Desk, process: str) -> None:
        desk.up("lab", desk.file)
        desk.machines.add("10.0.0.5", processes=f"sshd\nk3s-server\n{process}")
        with pytest.raises(UsageError, match=f"10.0.0.5 runs a Kubernetes .* .{process}."):
            desk.down("lab")
        assert "k3s-uninstall.sh" not in desk.machines.asked("10.0.0.5")
        assert "ssh-lab" in desk.contexts()

    def test_the_kubernetes_of_skypilot_is_no_other(self, desk: Desk) -> None:
        desk.up("lab", desk.file)
        desk.machines.add("10.0.0.5", processes="sshd\nk3s-server")
        desk.down("lab")
        assert "ssh-lab" not in desk.contexts()

    def test_a_machine_that_does_not_answer_changes_nothing(self, desk: Desk) -> None:
        desk.up("lab", desk.file)
        desk.machines.remove("10.0.0.5")
        with pytest.raises(TemporaryError, match=r"10\.0\.0\.5 does not answer \(ssh: .*refused\)"):
            desk.down("lab")
        assert "ssh-lab" in desk.contexts()

    def test_a_machine_that_was_not_cleaned_is_named(self, desk: Desk) -> None:
        """SkyPilot itself calls it a success."""
        desk.up("lab", desk.file)
        desk.machines.fails("10.0.0.5", "uninstalled", "sudo: a password is required")
        with pytest.raises(
            ProvisioningFailed, match=r"Failed to clean up head node \(10\.0\.0\.5\): run k3s-uninstall"
        ):
            desk.down("lab")
        assert desk.contexts() == ["work", "home"]

    def test_a_pool_of_somebody_else_is_not_ours_to_remove(self, desk: Desk) -> None:
        kubeconfig(desk.config, {"ssh-lab": "https://127.0.0.1:6444"}, current=None)
        with pytest.raises(UsageError, match=r"pool lab .*\(its pools: "):
            desk.down("lab")
