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
class Workstation:
    """A person's machine: a kubeconfig whose current context is `work`, and machines that they may make a pool of."""

    config: Path
    machines: Machines
    file: Path
    sky: Path

    def up(self, name: str, file: Path | None = None) -> str:
        return ensure_pool(name, file, kubeconfig=str(self.config))

    def down(self, name: str) -> None:
        remove_pool(name, kubeconfig=str(self.config))

    def read_kubeconfig(self) -> dict[str, object]:
        kubeconfig: dict[str, object] = yaml.safe_load(self.config.read_text())
        return kubeconfig

    def contexts(self) -> list[str]:
        return Kubeconfig.of(str(self.config)).contexts()


@pytest.fixture
def workstation(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workstation]:
    machines = Machines(tmp_path)
    machines.add("10.0.0.5")
    monkeypatch.setenv("PATH", machines.path)
    config = kubeconfig(
        tmp_path / "config", {"work": "https://10.1.1.1:6443", "home": "https://x:6443"}, current="work"
    )
    sky = home / ".imgsearch" / "sky"
    yield Workstation(config, machines, machines.pools(tmp_path / "pools.yaml", lab=["10.0.0.5"]), sky)
    for leftover in (sky / ".sky" / "ssh_node_pools.yaml", sky / ".kube" / "config"):
        leftover.unlink(missing_ok=True)
    shutil.rmtree(sky / ".sky" / "ssh_node_pools_info", ignore_errors=True)


def test_a_context_that_is_there_is_the_pool(workstation: Workstation) -> None:
    assert workstation.up("home") == "home"
    kubeconfig(workstation.config, {"ssh-lab": "https://127.0.0.1:6444"}, current=None)
    assert workstation.up("lab") == "ssh-lab"
    assert not workstation.machines.commands("10.0.0.5")


def test_a_pool_that_nobody_has_heard_of_needs_a_file(workstation: Workstation) -> None:
    with pytest.raises(UsageError, match=r"no context lab.*\(work, home\).*controller pools up lab --file"):
        workstation.up("lab")


class TestUp:
    def test_the_kubeconfig_gets_its_context_and_stays_as_it_was(self, workstation: Workstation) -> None:
        first_kubeconfig = workstation.read_kubeconfig()
        assert workstation.up("lab", workstation.file) == "ssh-lab"
        kubeconfig = workstation.read_kubeconfig()
        for section in Kubeconfig.PARTS:
            assert kubeconfig[section][:-1] == first_kubeconfig[section]  # type: ignore[index]
            assert kubeconfig[section][-1]["name"] == "ssh-lab"  # type: ignore[index]
        assert {key: kubeconfig[key] for key in kubeconfig if key not in Kubeconfig.PARTS} == {
            key: first_kubeconfig[key] for key in first_kubeconfig if key not in Kubeconfig.PARTS
        }
        assert kubeconfig["current-context"] == "work"
        assert "get.k3s.io" in workstation.machines.commands("10.0.0.5")
        assert workstation.up("lab") == "ssh-lab"

    def test_its_tunnel_finds_what_skypilot_has_kept_for_it(self, workstation: Workstation) -> None:
        workstation.up("lab", workstation.file)
        (user,) = [entry["user"] for entry in workstation.read_kubeconfig()["users"] if entry["name"] == "ssh-lab"]  # type: ignore[attr-defined]
        assert user["exec"]["env"] == [{"name": "HOME", "value": str(workstation.sky)}]
        assert str(workstation.machines.key) in user["exec"]["args"]
        assert (workstation.sky / ".sky" / "ssh_node_pools_info" / "ssh-lab-cert.pem").exists()

    def test_its_port_is_nobody_elses(self, workstation: Workstation) -> None:
        """SkyPilot overlooks who listens on all addresses, and other clusters' tunnels that are down: the context would
        lead to them."""
        kubeconfig(workstation.config, {"ssh-other": "https://127.0.0.1:6444"}, current=None)
        with ExitStack() as stack:
            with suppress(OSError):  # somebody does so already
                stack.enter_context(socket.create_server(("", 6443)))
            workstation.up("lab", workstation.file)
        assert Kubeconfig.of(str(workstation.config)).servers()["ssh-lab"] == "https://127.0.0.1:6445"

    def test_home_is_left_clean(self, workstation: Workstation, home: Path) -> None:
        workstation.up("lab", workstation.file)
        assert [path.name for path in home.iterdir()] == [".imgsearch"]
        assert not (workstation.sky / ".sky" / "api_server").exists()

    def test_the_person_hears_how_far_it_is(self, workstation: Workstation, capfd: pytest.CaptureFixture[str]) -> None:
        messages: list[str] = []
        ensure_pool("lab", workstation.file, kubeconfig=str(workstation.config), report=messages.append)
        assert "10.0.0.5" in messages[0]
        assert "SSH connection established to head node 10.0.0.5." in messages
        assert not [line for line in messages if "sky-payload" in line or "\x1b" in line]
        assert capfd.readouterr().out == ""

    def test_a_machine_that_does_not_answer_is_named_with_what_ssh_says(self, workstation: Workstation) -> None:
        workstation.machines.remove("10.0.0.5")
        with pytest.raises(ProvisioningFailed) as error:
            workstation.up("lab", workstation.file)
        message = str(error.value)
        assert "`sky ssh up` of lab" in message
        assert message.endswith(
            ": Failed to SSH to head node (10.0.0.5) (ssh: connect to host 10.0.0.5 port 22: Connection refused)"
        )
        assert workstation.contexts() == ["work", "home"]
        assert workstation.read_kubeconfig()["current-context"] == "work"

    def test_an_installer_that_fails_is_named_with_its_words(self, workstation: Workstation) -> None:
        workstation.machines.fail("10.0.0.5", "installed", "curl: (6) Could not resolve host: get.k3s.io")
        with pytest.raises(
            ProvisioningFailed, match=r"Failed to deploy K3s on head node .*\(curl: \(6\) Could not res"
        ):
            workstation.up("lab", workstation.file)

    def test_an_installer_that_was_not_downloaded_leaves_no_kubeconfig(self, workstation: Workstation) -> None:
        """`curl … | sh` ends well then, and SkyPilot believes it."""
        workstation.machines.forget("10.0.0.5")
        with pytest.raises(ProvisioningFailed, match=r"\(scp: \.kube/config: No such file or directory\)$"):
            workstation.up("lab", workstation.file)

    def test_a_password_is_not_told(self, workstation: Workstation, caplog: pytest.LogCaptureFixture) -> None:
        workstation.file.write_text(workstation.file.read_text() + "  password: hunter2\n")
        workstation.machines.fail("10.0.0.5", "installed", "sudo: 3 incorrect password attempts")
        messages: list[str] = []
        with pytest.raises(ProvisioningFailed, match="incorrect password attempts"):
            ensure_pool("lab", workstation.file, kubeconfig=str(workstation.config), report=messages.append)
        assert "hunter2" in workstation.machines.commands("10.0.0.5")
        assert "hunter2" not in "".join(messages) + caplog.text

    def test_gpus_that_kubernetes_will_not_see_are_a_warning(
        self, workstation: Workstation, caplog: pytest.LogCaptureFixture
    ) -> None:
        workstation.machines.add("10.0.0.5", gpu="NVIDIA L4")
        assert workstation.up("lab", workstation.file) == "ssh-lab"
        warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert "pool lab: Failed to install GPU Operator." in warnings
        assert not [line for line in warnings if "Prometheus" in line and "Failed to install" in line]

    def test_it_can_be_tried_again(self, workstation: Workstation) -> None:
        workstation.machines.fail("10.0.0.5", "installed", "curl: (6) Could not resolve host: get.k3s.io")
        with pytest.raises(ProvisioningFailed):
            workstation.up("lab", workstation.file)
        workstation.machines.remove("10.0.0.5")
        workstation.machines.add("10.0.0.5", processes="sshd\nk3s-server")
        assert workstation.up("lab", workstation.file) == "ssh-lab"

    @pytest.mark.parametrize("process", ["kubelet", "kubelite", "k3s-server", "/etc/kubernetes/kubelet.conf"])
    def test_a_machine_with_a_kubernetes_is_left_alone(self, workstation: Workstation, process: str) -> None:
        workstation.machines.add("10.0.0.5", processes=f"sshd\n{process}")
        with pytest.raises(UsageError, match=f"10.0.0.5 already runs Kubernetes .{process}."):
            workstation.up("lab", workstation.file)
        assert "get.k3s.io" not in workstation.machines.commands("10.0.0.5")
        with pytest.raises(UsageError, match=r"pool lab .*\(its pools: "):
            workstation.down("lab")

    @pytest.mark.parametrize(
        ("text", "sentence"),
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
    def test_a_file_that_is_wrong_is_refused_at_once(self, workstation: Workstation, text: str, sentence: str) -> None:
        workstation.file.write_text(text)
        with pytest.raises(UsageError, match=sentence):
            workstation.up("lab", workstation.file)
        assert not workstation.machines.commands("10.0.0.5")

    def test_a_file_that_is_not_there_is_named(self, workstation: Workstation, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"SSH Node Pools file not found: .*/none\.yaml"):
            workstation.up("lab", tmp_path / "none.yaml")

    def test_programs_that_are_missing_are_named(
        self, workstation: Workstation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(workstation.machines.programs))
        with pytest.raises(UsageError, match=r"install jq, kubectl$"):
            workstation.up("lab", workstation.file)


class TestDown:
    def test_the_kubeconfig_is_what_it_was(self, workstation: Workstation) -> None:
        first_kubeconfig = workstation.read_kubeconfig()
        workstation.up("lab", workstation.file)
        workstation.down("lab")
        assert workstation.read_kubeconfig() == first_kubeconfig
        assert "k3s-uninstall.sh" in workstation.machines.commands("10.0.0.5")
        with pytest.raises(UsageError, match=r"pool lab .*\(.* none\)"):
            workstation.down("lab")

    def test_what_was_the_current_context_is_not_replaced_by_another(self, workstation: Workstation) -> None:
        workstation.up("lab", workstation.file)
        workstation.config.write_text(
            workstation.config.read_text().replace("current-context: work", "current-context: ssh-lab")
        )
        workstation.down("lab")
        assert "current-context" not in workstation.read_kubeconfig()
        assert workstation.contexts() == ["work", "home"]

    @pytest.mark.parametrize("process", ["kubelet", "/var/lib/rancher/rke2"])
    def test_a_machine_with_another_kubernetes_is_left_alone(self, workstation: Workstation, process: str) -> None:
        workstation.up("lab", workstation.file)
        workstation.machines.add("10.0.0.5", processes=f"sshd\nk3s-server\n{process}")
        with pytest.raises(UsageError, match=f"10.0.0.5 runs a Kubernetes .* .{process}."):
            workstation.down("lab")
        assert "k3s-uninstall.sh" not in workstation.machines.commands("10.0.0.5")
        assert "ssh-lab" in workstation.contexts()

    def test_the_kubernetes_of_skypilot_is_no_other(self, workstation: Workstation) -> None:
        workstation.up("lab", workstation.file)
        workstation.machines.add("10.0.0.5", processes="sshd\nk3s-server")
        workstation.down("lab")
        assert "ssh-lab" not in workstation.contexts()

    def test_a_machine_that_does_not_answer_changes_nothing(self, workstation: Workstation) -> None:
        workstation.up("lab", workstation.file)
        workstation.machines.remove("10.0.0.5")
        with pytest.raises(TemporaryError, match=r"10\.0\.0\.5 does not answer \(ssh: .*refused\)"):
            workstation.down("lab")
        assert "ssh-lab" in workstation.contexts()

    def test_a_machine_that_was_not_cleaned_is_named(self, workstation: Workstation) -> None:
        """SkyPilot itself calls it a success."""
        workstation.up("lab", workstation.file)
        workstation.machines.fail("10.0.0.5", "uninstalled", "sudo: a password is required")
        with pytest.raises(
            ProvisioningFailed, match=r"Failed to clean up head node \(10\.0\.0\.5\): run k3s-uninstall"
        ):
            workstation.down("lab")
        assert workstation.contexts() == ["work", "home"]

    def test_a_pool_of_somebody_else_is_not_ours_to_remove(self, workstation: Workstation) -> None:
        kubeconfig(workstation.config, {"ssh-lab": "https://127.0.0.1:6444"}, current=None)
        with pytest.raises(UsageError, match=r"pool lab .*\(its pools: "):
            workstation.down("lab")
