"""OpenCLIP models: any architecture and tag, or a folder in OpenCLIP's format (`local-dir:PATH`)."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from imgsearch import machine
from imgsearch.encoder import LOCAL, Encoder, Pixels
from imgsearch.encoder.geometry import Geometry
from imgsearch.encoder.packed import pack
from imgsearch.errors import ImgsearchError, PermanentError, TemporaryError, UsageError, first_line
from imgsearch.vectors import Vectors

log = logging.getLogger(__name__)

CPU_BATCH = 16
"""The matrices of a smaller batch are too small for a core, and the activations of a larger one do not fit its cache:
of 8, 16 and 32, 16 was fastest for a ViT-B-32 and for an EfficientNet."""
GPU_BATCH = 256
WEIGHTS = ("*.safetensors", "*.bin", "*.pth")
"""Files in which OpenCLIP looks for the weights of a folder."""


def load_encoder(model: str, *, batch: int | None = None, threads: int | None = None) -> Encoder:
    """Loads `ARCH/TAG` or `local-dir:PATH` onto the GPU in bfloat16 (float16 if it has no bfloat16), or onto the CPU in
    float32. `threads`: CPU threads of one call; None: all. `batch`: images of one call; None: a default for the device.
    Raises UsageError for a model that does not exist, TemporaryError if its weights cannot be loaded now."""
    cores = machine.cpus()
    threads = min(threads or cores, cores)
    torch.set_num_threads(threads)
    network, preprocess, tokenizer = _create(model)
    fingerprint = _fingerprint(network)
    if torch.cuda.is_available():
        device, dtype = "cuda:0", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        network = network.to(device=device, dtype=dtype)
        workers = 2  # one batch is copied to the device while the other is computed
    else:
        device, dtype = "cpu", torch.float32
        network = pack(network.to(memory_format=torch.channels_last))
        workers = cores // threads
    return OpenClipEncoder(
        network,
        preprocess,
        tokenizer,
        model=model,
        fingerprint=fingerprint,
        device=device,
        dtype=dtype,
        batch=batch or (CPU_BATCH if device == "cpu" else GPU_BATCH),
        workers=workers,
        threads=threads,
    )


def download(model: str) -> None:
    """Downloads the weights of `ARCH/TAG` into the hub's cache, unless they are cached, and checks that these, or those
    of a folder, fit the architecture. It takes the memory of the weights file, and no time to initialise a network.
    Many processes with one cache may call it at once. Raises the errors of `load_encoder`."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning for each weight: it is checked, and not copied
        _create(model, device="meta")


class OpenClipEncoder:
    """An Encoder (see imgsearch.encoder) around one OpenCLIP network."""

    def __init__(
        self,
        network: Any,
        preprocess: transforms.Compose,
        tokenizer: Any,
        *,
        model: str,
        fingerprint: str,
        device: str,
        dtype: torch.dtype,
        batch: int,
        workers: int,
        threads: int,
    ) -> None:
        normalize = next(t for t in preprocess.transforms if isinstance(t, transforms.Normalize))
        self._network = network.eval()
        self._tokenizer = tokenizer
        # Pillow scales and crops, with bytes as result. The device does the remaining arithmetic on a whole batch, so
        # the images in the queues need a quarter of the memory.
        self._geometry = Geometry(preprocess)
        self._dtype = dtype
        self._threads = threads
        # (x / 255 - mean) / std as one multiplication and one addition
        std = torch.tensor(normalize.std).view(1, 3, 1, 1)
        mean = torch.tensor(normalize.mean).view(1, 3, 1, 1)
        self._factor = (1 / (255 * std)).to(device)
        self._shift = (-mean / std).to(device)
        self._shrinking = threading.Lock()
        self._cores = ThreadPoolExecutor(threads, "text", initializer=torch.set_num_threads, initargs=(1,))
        self.model = model
        self.fingerprint = fingerprint
        self.preprocessing = "; ".join(str(t) for t in preprocess.transforms)
        size = network.visual.image_size
        self.size = max(size) if isinstance(size, (tuple, list)) else int(size)
        self.device = device
        self.workers = workers
        self.batch = batch
        self.dim = self.encode_texts(["a photo"]).shape[1]

    @property
    def device_memory(self) -> int:
        return 0 if self.device == "cpu" else torch.cuda.max_memory_allocated()

    def prepare(self, image: Image.Image) -> Pixels:
        return self._geometry.prepare(image)

    def encode_images(self, batch: Sequence[Pixels]) -> Vectors:
        vectors: list[Vectors] = []
        start = 0
        while start < len(batch):
            size = self.batch
            try:
                vectors.append(self._encode(batch[start : start + size]))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                self._shrink(size)
            else:
                start += size
        return np.concatenate(vectors) if vectors else np.zeros((0, self.dim), np.float32)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        tokens = self._tokenizer(list(texts))
        if self.device == "cpu" and len(texts) >= self._threads > 1:
            # One part for each core: threads that share one matrix wait for each other, and on a busy machine they wait
            # long.
            return np.concatenate(list(self._cores.map(self._encode_tokens, tokens.chunk(self._threads))))
        torch.set_num_threads(self._threads)
        return self._encode_tokens(tokens)

    def _encode_tokens(self, tokens: Tensor) -> Vectors:
        with torch.inference_mode():
            return _normalized(self._network.encode_text(tokens.to(self.device)))

    def _encode(self, batch: Sequence[Pixels]) -> Vectors:
        torch.set_num_threads(self._threads)  # OpenMP keeps the number per calling thread
        # (n, h, w, 3) viewed as (n, 3, h, w): the channels-last order, best for convolutions
        raw = torch.from_numpy(np.stack(batch)).to(self.device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            pixels = (raw.float() * self._factor + self._shift).to(self._dtype)
            return _normalized(self._network.encode_image(pixels))

    def _shrink(self, size: int) -> None:
        """Halves the batch, unless another thread has halved it since `size` was read."""
        with self._shrinking:
            if self.batch == size:
                if size == 1:
                    raise PermanentError(
                        f"the memory of {self.device} is too small for one image with {self.model}: "
                        "use a smaller model or a larger device"
                    )
                self.batch = size // 2
                log.warning("out of memory on %s, continuing with batches of %d", self.device, self.batch)
        if self.device != "cpu":
            torch.cuda.empty_cache()


def _normalized(features: Tensor) -> Vectors:
    return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _name(model: str) -> str:
    return model if model.startswith(LOCAL) else model.split("/", 1)[0]


def _create(model: str, *, device: str = "cpu") -> tuple[Any, transforms.Compose, Any]:
    """The network, its preprocessing and its tokenizer; for some models the tokenizer is downloaded too."""
    tag = None
    if model.startswith(LOCAL):
        _check_folder(Path(model.removeprefix(LOCAL)))
    else:
        tag = _checked_tag(model)
    _check_packages(model)
    try:
        network, _, preprocess = open_clip.create_model_and_transforms(
            _name(model), pretrained=tag, device=device, force_quick_gelu=needs_quick_gelu(model)
        )
        tokenizer = open_clip.get_tokenizer(_name(model))
    except Exception as error:  # open_clip, the hub and safetensors raise errors of many classes
        raise _load_failure(model, error) from error
    return network, preprocess, tokenizer


def needs_quick_gelu(model: str) -> bool:
    """Whether the weights of `ARCH/TAG` were trained with QuickGELU, an activation that ARCH may not have by itself:
    OpenAI's were, for example. The configuration of a folder names its own activation."""
    arch, _, tag = model.partition("/")
    return not model.startswith(LOCAL) and bool(open_clip.get_pretrained_cfg(arch, tag).get("quick_gelu"))


def _check_folder(folder: Path) -> None:
    """OpenCLIP makes random weights for a folder without any."""
    if not (folder / "open_clip_config.json").is_file():
        raise UsageError(f"invalid model folder {folder}: it has no open_clip_config.json")
    if not any(file for pattern in WEIGHTS for file in folder.glob(pattern)):
        raise PermanentError(f"invalid model folder {folder}: it has no weights ({', '.join(WEIGHTS)})")


def _check_packages(model: str) -> None:
    """The tokenizer or the text tower of some models is Hugging Face's, from a package that no extra installs."""
    text = _text_config(model)
    if (text.get("hf_tokenizer_name") or text.get("hf_model_name")) and find_spec("transformers") is None:
        raise PermanentError(
            f"{model} needs the package transformers for its texts, which is not installed: "
            "`pip install transformers`, or use another model"
        )


def _text_config(model: str) -> Mapping[str, Any]:
    """The `text_cfg` of the model's configuration; empty if it has none."""
    if model.startswith(LOCAL):
        file = Path(model.removeprefix(LOCAL)) / "open_clip_config.json"
        try:
            text = json.loads(file.read_bytes())["model_cfg"]["text_cfg"]
        except (ValueError, KeyError, TypeError):
            return {}  # OpenCLIP's own error names the problem
    else:
        text = (open_clip.get_model_config(model.partition("/")[0]) or {}).get("text_cfg")
    return text if isinstance(text, dict) else {}


def _checked_tag(model: str) -> str:
    arch, _, tag = model.partition("/")
    architectures = open_clip.list_models()
    if arch not in architectures:
        raise UsageError(f"OpenCLIP has no architecture {arch!r}{_similar(arch, architectures)}")
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if tag not in tags:
        raise UsageError(
            f"{arch} has no pretrained weights {tag!r}; use {arch}/TAG with one of: {', '.join(tags) or 'none exist'}"
        )
    return tag


def _similar(name: str, known: Sequence[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return (
        f"; did you mean {' or '.join(matches)}?"
        if matches
        else "; `python -c 'import open_clip; print(open_clip.list_models())'` lists them"
    )


def _load_failure(model: str, error: Exception) -> ImgsearchError:
    reason = first_line(error)
    if reason.startswith("Error(s) in loading state_dict"):
        # torch lists the missing, the unexpected and the misshapen weights, some hundreds of them
        weights = " ".join(str(error).partition("\n")[2].split())
        return PermanentError(f"the weights of {model} are those of another architecture: {weights[:300]}")
    if model.startswith(LOCAL):
        return PermanentError(f"cannot load the model in {model.removeprefix(LOCAL)}: {reason}")
    if isinstance(error, ImportError):
        return PermanentError(f"{model} needs a package that is not installed: {reason}")
    return TemporaryError(
        f"cannot load the weights of {model} ({reason}): check the network, or HF_HOME if they should be cached"
    )


def _fingerprint(network: torch.nn.Module) -> str:
    """SHA-256 over every parameter's name, shape and first 16 values: different for two trainings, and fast for a
    model of 10 GB. Computed in float32, before the weights get the device's precision."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.flatten()[:16].float().numpy().tobytes())
    return digest.hexdigest()[:32]
