"""The program of `helm test`, asking a real searcher."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.chart.helm import CHART
from tests.searcher.fake_searcher import searcher
from tests.searcher.library import hashed


def check(url: str, **env: str) -> subprocess.CompletedProcess[str]:
    """As the pod runs it: the text of the program on the command line."""
    return subprocess.run(
        [sys.executable, "-c", (CHART / "files" / "check.py").read_text()],
        env={"SEARCHER_URL": url, **env},
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_it_prints_what_is_served(tmp_path: Path) -> None:
    with searcher(tmp_path) as url:
        completed = check(url)
    assert completed.returncode == 0, completed.stderr
    assert 'ready: {"status": "ready"' in completed.stdout
    assert "index photos: run r1, 4 images" in completed.stdout


def test_a_searcher_that_wants_a_key_is_well(tmp_path: Path) -> None:
    with searcher(tmp_path, api_keys=hashed("key")) as url:
        completed = check(url)
    assert completed.returncode == 0, completed.stderr
    assert 'ready: {"status": "ready"' in completed.stdout
    assert "needs an API key" in completed.stdout
    assert "index photos" not in completed.stdout
