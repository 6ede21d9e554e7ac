"""Names on Jobs and their pods: the label and annotation keys that the controller writes and reads back."""

from __future__ import annotations

NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
"""The release."""
COMPONENT = "app.kubernetes.io/component"
"""The stage: plan, embed or ingest."""
MANAGED_BY = "app.kubernetes.io/managed-by"
RUN = "imgsearch.dev/run"
INDEX = "imgsearch.dev/index"
SPEC_HASH = "imgsearch.dev/spec-hash"
"""Annotation: of the Job's spec as the controller made it; tells the same Job from another of its name."""
