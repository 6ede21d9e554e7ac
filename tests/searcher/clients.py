"""The published clients of other servers, in the environment of their own that `make install-clients` makes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"

ROBOFLOW = """
import asyncio, json, sys
from inference_sdk import InferenceConfiguration, InferenceHTTPClient
from inference_sdk.http.errors import HTTPCallErrorError

connection, api, configuration, calls = json.loads(sys.argv[1])
client = InferenceHTTPClient(**connection)
client.configure(InferenceConfiguration(**configuration))
getattr(client, f"select_api_{api}")()
answers = []
for name, arguments in calls:
    try:
        answer = getattr(client, name)(**arguments)
        answers.append(asyncio.run(answer) if name.endswith("_async") else answer)
    except HTTPCallErrorError as error:
        answers.append({"status": error.status_code, "message": error.api_message})
print(json.dumps(answers))
"""

# Its package would import faiss, torch and a web server; the client is one module of it, and needs none of them.
CLIP_RETRIEVAL = """
import importlib.util, json, sys
from pathlib import Path

(folder,) = importlib.util.find_spec("clip_retrieval").submodule_search_locations
spec = importlib.util.spec_from_file_location("clip_client", Path(folder) / "clip_client.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

arguments, queries = json.loads(sys.argv[1])
client = module.ClipClient(**arguments)
print(json.dumps([client.query(**query) for query in queries]))
"""


def roboflow(
    url: str,
    calls: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    key: str | None = None,
    api: str = "v1",
    **configuration: Any,
) -> list[Any]:
    """What methods of inference-sdk's client return; of one that raises HTTPCallErrorError, its status and message.

    `api`: v1, which it takes by itself for a server of one's own, or v0."""
    return _run(ROBOFLOW, [{"api_url": url, "api_key": key}, api, configuration, calls])


def clip_retrieval(arguments: Mapping[str, Any], queries: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What a ClipClient of these arguments returns of each query."""
    return _run(CLIP_RETRIEVAL, [arguments, queries])


def _run(program: str, arguments: Any) -> list[Any]:
    if not PYTHON.exists():
        pytest.skip("the clients of other servers are not here: make install-clients")
    command = [str(PYTHON), "-c", program, json.dumps(arguments)]
    completed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert completed.returncode == 0, completed.stderr
    results: list[Any] = json.loads(completed.stdout.splitlines()[-1])
    return results
