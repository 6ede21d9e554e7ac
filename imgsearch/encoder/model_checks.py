"""Checks of a model's name, folder and packages before its weights are loaded, and the errors of loading them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imgsearch import distribution
from imgsearch.encoder import LOCAL
from imgsearch.encoder.libraries import open_clip
from imgsearch.encoder.model_config import FOLDER_CONFIG, configuration
from imgsearch.errors import FULL_DISK, ImgsearchError, PermanentError, TemporaryError, UsageError, first_line

WEIGHTS = ("*.safetensors", "*.bin", "*.pth")
"""Files in which OpenCLIP looks for the weights of a folder."""


def check(model: str) -> None:
    """Raises UsageError for a model that does not exist, PermanentError for one that cannot be loaded here."""
    if model.startswith(LOCAL):
        _check_folder(Path(model.removeprefix(LOCAL)))
    else:
        _check_tag(model)
    _check_packages(model)


def needs_quick_gelu(model: str) -> bool:
    """Whether the weights of `ARCH/TAG` were trained with QuickGELU, an activation that ARCH may not have by itself:
    OpenAI's were, for example. The configuration of a folder names its own activation."""
    arch, _, tag = model.partition("/")
    return not model.startswith(LOCAL) and bool(open_clip.get_pretrained_cfg(arch, tag).get("quick_gelu"))


def has_hf_tokenizer(model: str) -> bool:
    return bool(_text_config(model).get("hf_tokenizer_name"))


def _check_folder(folder: Path) -> None:
    """OpenCLIP makes random weights for a folder without any."""
    if not (folder / FOLDER_CONFIG).is_file():
        raise UsageError(f"invalid model folder {folder}: it has no {FOLDER_CONFIG}")
    if not any(file for pattern in WEIGHTS for file in folder.glob(pattern)):
        raise PermanentError(f"invalid model folder {folder}: it has no weights ({', '.join(WEIGHTS)})")


def _check_packages(model: str) -> None:
    """The tokenizer or the text tower of some models is Hugging Face's. Its package is an extra, since OpenCLIP imports
    it wherever it is installed, which takes seconds in every process."""
    if (has_hf_tokenizer(model) or _text_config(model).get("hf_model_name")) and find_spec("transformers") is None:
        raise PermanentError(
            f"{model} needs the package transformers for its texts: {distribution.install('transformers')}; "
            "build container images with `make images EXTRA=transformers`"
        )


def _text_config(model: str) -> Mapping[str, Any]:
    """The `text_cfg` of the model's configuration; empty if it has none."""
    text = configuration(model).get("text_cfg")
    return text if isinstance(text, dict) else {}


def _check_tag(model: str) -> None:
    arch, _, tag = model.partition("/")
    architectures = open_clip.list_models()
    if arch not in architectures:
        raise UsageError(f"OpenCLIP has no architecture {arch!r}{_similar(arch, architectures)}")
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if tag not in tags:
        raise UsageError(
            f"{arch} has no pretrained weights {tag!r}; use {arch}/TAG with one of: {', '.join(tags) or 'none exist'}"
        )


def _similar(name: str, known: Sequence[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return (
        f"; did you mean {' or '.join(matches)}?"
        if matches
        else "; `python -c 'import open_clip; print(open_clip.list_models())'` lists them"
    )


def load_failure(model: str, part: str, error: Exception) -> ImgsearchError:
    """The error for what OpenCLIP raised while it loaded a `part` of the model: its weights or its tokenizer."""
    reason = first_line(error)
    if any(os.strerror(code) in str(error) for code in FULL_DISK):  # OpenCLIP keeps the text of the error only
        return PermanentError(f"no space left for the {part} of {model} ({reason}): free some space, or set HF_HOME")
    if reason.startswith("Error(s) in loading state_dict"):
        # torch lists the missing, the unexpected and the misshapen weights, some hundreds of them
        weights = " ".join(str(error).partition("\n")[2].split())
        return PermanentError(f"the weights of {model} are those of another architecture: {weights[:300]}")
    if model.startswith(LOCAL):
        files = "; put its tokenizer.json and tokenizer_config.json into the folder" if part == "tokenizer" else ""
        return PermanentError(f"cannot load the {part} of the model in {model.removeprefix(LOCAL)}: {reason}{files}")
    if isinstance(error, ImportError):
        return PermanentError(f"{model} needs a package that is not installed: {reason}")
    return TemporaryError(
        f"cannot load the {part} of {model} ({reason}): check the network, or HF_HOME if the files should be cached"
    )
