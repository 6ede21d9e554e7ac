"""The tokenizer of a model: OpenCLIP's own, or Hugging Face's from a folder, the hub's cache or the hub."""

from __future__ import annotations

from typing import Any

from imgsearch.encoder import LOCAL
from imgsearch.encoder.libraries import open_clip
from imgsearch.encoder.model_checks import has_hf_tokenizer, load_failure


def load_tokenizer(model: str, network: Any, *, cached: bool) -> Any:
    """The tokenizer for a `network` of OpenCLIP. `cached`: from the hub's cache without a request, if the cache has it;
    otherwise transformers sends requests, and without a network it waits about 45 s until they have failed.
    Raises the errors of `load_failure`."""
    name = model if model.startswith(LOCAL) else model.partition("/")[0]
    vocabulary = getattr(network, "text", network).vocab_size
    if cached and has_hf_tokenizer(model) and not model.startswith(LOCAL):
        try:
            return _checked(open_clip.get_tokenizer(name, local_files_only=True), vocabulary)
        except (OSError, ValueError):  # not in the cache, or only a part of it
            pass
    try:
        return _checked(open_clip.get_tokenizer(name), vocabulary)
    except Exception as error:  # those of the hub and of transformers
        raise load_failure(model, "tokenizer", error) from error


def _checked(tokenizer: Any, vocabulary: int) -> Any:
    """Raises ValueError for a tokenizer without the file of its vocabulary: transformers makes one of a few special
    tokens, to which every word is unknown. For all pretrained weights, the tokenizer has about as many tokens as the
    text encoder."""
    if isinstance(tokenizer, open_clip.tokenizer.HFTokenizer) and 2 * len(tokenizer.tokenizer) < vocabulary:
        raise ValueError(
            f"it has {len(tokenizer.tokenizer)} tokens, and the text encoder {vocabulary}, "
            "so the file of its vocabulary is missing"
        )
    tokenizer(["a photo"])  # transformers finds some missing parts only at the first text
    return tokenizer
