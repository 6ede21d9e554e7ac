"""What a person reads of what SkyPilot says, and what they never read."""

from __future__ import annotations

from controller.backends.skypilot.messages import Line, failure_reason, readable

INSTALLING = """\
<sky-payload>"<rich_init>Initializing</rich_init>"</sky-payload>
\x1b[33m➜ HA mode enabled: 3 servers + 0 agents\x1b[0m
\x1b[31mError executing command
        echo secret
        curl -sfL https://get.k3s.io | sh - on this
        on 10.0.0.5:\x1b[0m sudo: a password is required
curl: (6) Could not resolve host: get.k3s.io

\x1b[32mSuccessfully deployed 0 cluster(s) (). \x1b[0m\x1b[31mFailed to deploy 1 cluster(s): \x1b[0m
  lab: Failed to deploy K3s on head node (10.0.0.5). See the log.
"""


def test_nobody_reads_commands_which_may_have_a_password_in_them() -> None:
    assert [line.text for line in readable(INSTALLING.splitlines())] == [
        "HA mode enabled: 3 servers + 0 agents",
        "sudo: a password is required",
        "curl: (6) Could not resolve host: get.k3s.io",
        "Successfully deployed 0 cluster(s) (). Failed to deploy 1 cluster(s):",
        "lab: Failed to deploy K3s on head node (10.0.0.5). See the log.",
    ]


def test_the_words_of_what_failed_are_known() -> None:
    failed_lines = [line.text for line in readable(INSTALLING.splitlines()) if line.failed]
    assert failed_lines == ["sudo: a password is required", "curl: (6) Could not resolve host: get.k3s.io"]
    message = "Error executing command true on 10.0.0.5: ssh: connect to host 10.0.0.5 port 22: refused"
    assert list(readable([message])) == [Line("ssh: connect to host 10.0.0.5 port 22: refused", failed=True)]


def test_a_failure_is_told_by_its_step_and_the_words_of_what_failed() -> None:
    lines = list(readable(INSTALLING.splitlines()))
    texts = [lines[-1].text]
    step = "Failed to deploy K3s on head node (10.0.0.5)"
    assert failure_reason("lab", lines, texts) == f"{step} (curl: (6) Could not resolve host: get.k3s.io)"
    assert failure_reason("lab", [], texts) == step
    assert failure_reason("lab", [], []) == "no reason given"
