"""Kubeconfig files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def kubeconfig(
    path: Path, url: str, *, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None
) -> str:
    """Writes one with two contexts: `here` (the current one) and `other`, which names a namespace."""
    contexts: list[dict[str, Any]] = [
        {"name": "here", "context": {"cluster": "c", "user": "u"}},
        {"name": "other", "context": {"cluster": "c", "user": "u", "namespace": "theirs"}},
    ]
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": url, **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": contexts,
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)
