"""The rules of .importlinter refuse what they are there to refuse: bad imports are planted in a copy of the code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.programs import ROOT

PACKAGES = ("imgsearch", "controller", "images/embedder", "images/searcher")
PLANTED = [
    # a layer imports one above it
    ("controller/gpus/nodes.py", "controller.jobs.state"),
    ("controller/jobs/manifests.py", "controller.backends.local"),
    ("controller/run/capacity.py", "controller.cli.options"),
    ("images/searcher/search/vectors.py", "searcher.http.problems"),
    ("images/searcher/search/batcher.py", "searcher.search.model"),
    ("images/searcher/ingest/job.py", "searcher.search.catalog"),
    ("images/searcher/ingest/fill.py", "searcher.ingest.job"),
    ("images/searcher/evaluation/queries.py", "searcher.evaluation.relevance"),
    ("images/searcher/admin/reports.py", "searcher.admin.deletion"),
    ("images/embedder/parts.py", "embedder.part_writer"),
    ("imgsearch/vectors.py", "imgsearch.stores"),
    ("imgsearch/settings/fields.py", "imgsearch.settings.searcher"),
    ("controller/backends/kubernetes/pods.py", "controller.backends.kubernetes.progress"),
    ("controller/backends/skypilot/placement.py", "controller.backends.skypilot.reconciler"),
    # a backend imports another
    ("controller/backends/local.py", "controller.backends.kubernetes.backend"),
    ("controller/backends/skypilot/backend.py", "controller.backends.kubernetes.pods"),
    ("controller/backends/kubernetes/backend.py", "controller.backends.skypilot.placement"),
    # a program imports another, and the library a program
    ("images/embedder/plan.py", "searcher.ingest.run_reader"),
    ("imgsearch/stage.py", "controller.jobs.state"),
    # a third party without its door
    ("images/searcher/evaluation/job.py", "fastapi"),
    ("imgsearch/stage.py", "torch"),
    ("imgsearch/sources/folder.py", "obstore"),
    ("images/searcher/ingest/job.py", "chromadb"),
    ("controller/backends/local.py", "kubernetes"),
    ("controller/cli/targets/base.py", "sky"),
    ("controller/cli/targets/base.py", "argparse"),
    ("controller/run/loop.py", "numpy"),
    ("controller/backends/skypilot/reconciler.py", "subprocess"),
    # what decides reads a clock, starts a program, or reads a file
    ("controller/backends/skypilot/attempts.py", "subprocess"),
    ("controller/run/steps.py", "time"),
    ("imgsearch/runs/layout.py", "pathlib"),
    ("images/searcher/search/ranking.py", "time"),
    ("images/searcher/ingest/report.py", "imgsearch.storage"),
]
NEW_FILES = ("controller/elsewhere.py", "images/searcher/elsewhere.py", "imgsearch/elsewhere.py")


def test_bad_imports_are_refused(tmp_path: Path) -> None:
    code = _copy(tmp_path)
    for file, module in PLANTED:
        with (code / file).open("a") as source:
            source.write(f"\nimport {module}\n")
    report = _lint(code)
    not_refused = [f"{file}: {module}" for file, module in PLANTED if not _refused(report, file, module)]
    assert not_refused == []


def test_a_new_file_must_have_a_layer(tmp_path: Path) -> None:
    code = _copy(tmp_path)
    for file in NEW_FILES:
        (code / file).write_text("")
        assert _module(file) in _lint(code), file
        (code / file).unlink()


def _copy(folder: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "web"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


def _lint(code: Path) -> str:
    """The report of import-linter on `code`, its lines joined: it wraps them."""
    program = f"import sys; sys.path[:0] = {[str(code), str(code / 'images')]!r}; " + (
        "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-logo', '--no-cache'])"
    )
    completed = subprocess.run([sys.executable, "-c", program], cwd=code, capture_output=True, text=True, check=False)
    assert completed.returncode == 1, completed.stdout + completed.stderr
    return re.sub(r"\s+", " ", completed.stdout)


def _refused(report: str, file: str, module: str) -> bool:
    importer, imported = re.escape(_module(file)), re.escape(module)
    top = re.escape(module.split(".")[0])
    return bool(re.search(rf"- {importer} -> ({imported}|{top}) \(l\.", report))


def _module(file: str) -> str:
    return file.removesuffix(".py").removeprefix("images/").replace("/", ".")
