"""OpenCLIP models: any architecture and tag, or a folder in OpenCLIP's format (`local-dir:PATH`)."""

from __future__ import annotations

import hashlib
import logging
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgsearch import machine
from imgsearch.encoder import LOCAL, Encoder, Pixels
from imgsearch.encoder.geometry import Geometry
from imgsearch.encoder.libraries import open_clip, transforms
from imgsearch.encoder.model_checks import check, load_failure, needs_quick_gelu
from imgsearch.encoder.packed import pack
from imgsearch.encoder.tokenizer import load_tokenizer
from imgsearch.errors import PermanentError
from imgsearch.vectors import Vectors

log = logging.getLogger(__name__)

CPU_BATCH = 16
"""The matrices of a smaller batch are too small for a core, and the activations of a larger one do not fit its cache:
of 8, 16 and 32, 16 was fastest for a ViT-B-32 and for an EfficientNet."""
GPU_BATCH = 256


def load_encoder(model: str, *, batch: int | None = None, threads: int | None = None) -> Encoder:
    """Loads `ARCH/TAG` or `local-dir:PATH` onto the GPU in bfloat16 (float16 if it has no bfloat16), or onto the CPU in
    float32. `threads`: CPU threads of one call; None: all. `batch`: images of one call; None: a default for the device.
    Raises UsageError for a model that does not exist, PermanentError for one that cannot be loaded here, and
    TemporaryError if its weights or its tokenizer cannot be loaded now."""
    cores = machine.cpus()
    threads = min(threads or cores, cores)
    torch.set_num_threads(threads)
    network, preprocess = _create(model)
    tokenizer = load_tokenizer(model, network, cached=True)
    return on_device(network, preprocess, tokenizer, model=model, batch=batch, threads=threads)


def on_device(
    network: Any, preprocess: transforms.Compose, tokenizer: Any, *, model: str, batch: int | None, threads: int
) -> OpenClipEncoder:
    """The encoder of a network of OpenCLIP that is in the memory, in float32. See `load_encoder`."""
    fingerprint = _fingerprint(network)
    if torch.cuda.is_available():
        device, dtype = "cuda:0", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        network = network.to(device=device, dtype=dtype)
        workers = 2  # one batch is copied to the device while the other is computed
    else:
        device, dtype = "cpu", torch.float32
        network = pack(network.to(memory_format=torch.channels_last))
        workers = machine.cpus() // threads
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
    """Downloads the weights and the tokenizer of `ARCH/TAG` into the hub's cache, unless they are cached, and checks
    that these, or those of a folder, fit the architecture. It takes the memory of the weights file, and no time to
    initialise a network. Many processes with one cache may call it at once. Raises the errors of `load_encoder`."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning for each weight: it is checked, and not copied
        network, _ = _create(model, device="meta")
    load_tokenizer(model, network, cached=False)  # so that the cache has all of its files, also after an interruption


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


def _create(model: str, *, device: str = "cpu") -> tuple[Any, transforms.Compose]:
    """The network and its preprocessing."""
    check(model)
    name, tag = (model, None) if model.startswith(LOCAL) else model.split("/", 1)
    try:
        network, _, preprocess = open_clip.create_model_and_transforms(
            name, pretrained=tag, device=device, force_quick_gelu=needs_quick_gelu(model)
        )
    except Exception as error:  # open_clip, the hub and safetensors raise errors of many classes
        raise load_failure(model, "weights", error) from error
    return network, preprocess


def _fingerprint(network: torch.nn.Module) -> str:
    """SHA-256 over every parameter's name, shape and first 16 values: different for two trainings, and fast for a
    model of 10 GB. Computed in float32, before the weights get the device's precision."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.flatten()[:16].float().numpy().tobytes())
    return digest.hexdigest()[:32]
