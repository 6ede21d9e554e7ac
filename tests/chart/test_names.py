"""Names that YAML reads as numbers or booleans: they stay strings."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.chart.helm import NAMESPACE, RELEASE, Helm


class Yaml11(yaml.SafeLoader):
    """Reads `y` and `n` as booleans, as Helm does."""


Yaml11.add_implicit_resolver("!letter", re.compile("^[yYnN]$"), list("yYnN"))
Yaml11.add_constructor("!letter", lambda *_: True)


def types(value: Any) -> Any:
    """The same tree, with the type of each value in its place."""
    match value:
        case dict():
            return {key: types(child) for key, child in value.items()}
        case list():
            return [types(child) for child in value]
    return type(value)


def rendered(helm: Helm, word: str, *, release: str = RELEASE, namespace: str = NAMESPACE) -> list[Any]:
    """The types of all values of all objects, where each name in the values is this word."""
    values = {
        "models": {"claim": {"storageClass": word}},
        "storage": {"claim": {"storageClass": word}},
        "hub": {"existingSecret": word},
        "commonLabels": {"team": word},
        "existingServiceAccounts": {"worker": word, "controller": word, "chroma": word},
        "caBundle": {"existingSecret": word, "key": word},
        "sources": [
            {"name": "photos", "existingClaim": word, "subPath": word},
            {"name": "nas", "nfs": {"server": word, "path": f"/{word}"}},
            {"name": "share", "csi": {"driver": word, "nodePublishSecretRef": {"name": word}}},
        ],
        "chroma": {"claim": {"existingClaim": word}, "priorityClassName": word},
        "searcher": {
            "apiKeys": {"existingSecret": word},
            "podLabels": {"tier": word},
            "extraEnv": [{"name": "WORD", "value": word}],
            "extraVolumes": [{"name": word, "configMap": {"name": word}}],
            "extraVolumeMounts": [{"name": word, "mountPath": "/word", "subPath": word}],
            "service": {"annotations": {"note": word}},
            "ingress": {
                "enabled": True,
                "host": "a.example",
                "extraHosts": [{"host": word, "existingSecret": word}],
                "className": word,
                "tls": {"existingSecret": word},
            },
        },
        "reindex": {"enabled": True, "source": word, "index": word, "schedule": "0 3 * * *"},
    }
    completed = helm.try_template(values, release=release, namespace=namespace)
    assert completed.returncode == 0, completed.stderr
    return [types(manifest) for manifest in yaml.load_all(completed.stdout, Yaml11) if manifest]


def test_a_release_y_in_a_namespace_2024_has_the_objects_of_any_other(helm: Helm) -> None:
    assert rendered(helm, "word", release="y", namespace="2024") == rendered(helm, "word")


def test_names_in_the_values_stay_strings(helm: Helm) -> None:
    for word in ("2024", "1e3", "y", "true", "null"):
        assert rendered(helm, word) == rendered(helm, "word"), word
