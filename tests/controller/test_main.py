from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from tests.programs import ROOT, controller

HEAVY = ("torch", "open_clip", "chromadb", "datasets", "pyarrow", "numpy", "PIL", "obstore")


def test_the_controller_needs_nothing_heavy() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
for name in {HEAVY!r}:
    sys.modules[name] = None  # importing it raises ImportError
import controller.main
assert "kubernetes" not in sys.modules, "work on this machine does not pay for it"
import controller.backends.kubernetes.backend
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_dry_run_prints_the_jobs_and_creates_none(tmp_path: Path) -> None:
    home = tmp_path / "home"
    completed = controller("run-pipeline", tmp_path, "--local", "--home", home, "--dry-run", "--run", "r1")
    assert completed.returncode == 0, completed.stderr
    jobs = list(yaml.safe_load_all(completed.stdout))
    assert [job["metadata"]["name"] for job in jobs] == ["local-r1-plan", "local-r1-embed", "local-r1-ingest"]
    assert jobs[1]["spec"]["template"]["spec"]["containers"][0]["command"] == ["python", "-m", "embedder", "embed"]
    assert not (home / "jobs").exists()
