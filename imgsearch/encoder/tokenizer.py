"""The tokenizer of a model: OpenCLIP's own, or Hugging Face's from a folder, the hub's cache or the hub."""

from __future__ import annotations

from typing import Any

import open_clip

from imgsearch.encoder import LOCAL
from imgsearch.encoder.model_checks import has_hf_tokenizer, load_failure


def load_tokenizer(model: str, network: Any, *, cached: bool) -> Any:
    """`cached`: from the hub's cache, if it is there. Without it, the hub is asked for each file: a process without a
    network waits about 45 s until all requests have failed. Raises the errors of `load_failure`."""
    name = model if model.startswith(LOCAL) else model.partition("/")[0]
    vocabulary = getattr(network, "text", network).vocab_size
    if cached and has_hf_tokenizer(model) and not model.startswith(LOCAL):
        try:
            return _complete(open_clip.get_tokenizer(name, local_files_only=True), vocabulary)
        except (OSError, ValueError):  # it is not there, or only a part of it
            pass
    try:
        return _complete(open_clip.get_tokenizer(name), vocabulary)
    except Exception as error:  # those of the hub and of transformers
        raise load_failure(model, "tokenizer", error) from error


def _complete(tokenizer: Any, vocabulary: int) -> Any:
    """Without the file of its vocabulary, transformers makes a tokenizer of a few special tokens, to which every word
    is unknown. The tokenizers of all pretrained weights have about as many tokens as the text encoder."""
    if isinstance(tokenizer, open_clip.tokenizer.HFTokenizer) and 2 * len(tokenizer.tokenizer) < vocabulary:
        raise ValueError(
            f"it has {len(tokenizer.tokenizer)} tokens, and the text encoder {vocabulary}: "
            "the file of its vocabulary is missing, for example tokenizer.json"
        )
    tokenizer(["a photo"])  # some parts are missed at the first text only
    return tokenizer
