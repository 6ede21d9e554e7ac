"""What comes with what: SkyPilot takes two seconds to import, which only those pay who ask it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = """
import importlib, pkgutil, sys
from controller.backends import skypilot
for module in pkgutil.iter_modules(skypilot.__path__):
    importlib.import_module(f"controller.backends.skypilot.{module.name}")
print(skypilot.installed(), sorted(name for name in sys.modules if name.partition(".")[0] == "sky"))
"""


def test_skypilot_is_not_imported_before_it_is_asked() -> None:
    completed = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (completed.stdout, completed.stderr) == ("True []\n", "")
