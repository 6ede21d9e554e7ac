"""OpenCLIP and torchvision, imported without torch's compiler: a process starts in two thirds of the time, with 140 MB
less memory.

Nothing here compiles a model. Nevertheless torchvision (ops/roi_align.py) and timm (`@torch.compiler.disable`) import
torch._dynamo, the front end of the compiler, which imports 900 modules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Stands in for the compiler, unless it is imported already. After the block, an import finds the real one."""
    if COMPILER in sys.modules:
        yield
        return
    compiler, utils = ModuleType(COMPILER), ModuleType(f"{COMPILER}.utils")
    stand_ins = {COMPILER: compiler, utils.__name__: utils}
    vars(compiler).update(__path__=[], disable=_disable, utils=utils)
    vars(utils).update(is_compile_supported=_is_compile_supported)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]
        vars(torch).pop("_dynamo", None)


def _disable(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    """As torch._dynamo.disable, for functions that are never compiled."""
    return (lambda decorated: decorated) if function is None else function


def _is_compile_supported(device: str) -> bool:
    """Calls the real function: torchvision asks when it aligns regions, and not when it is imported."""
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device))


with _without_compiler():
    import open_clip
    from torchvision import transforms

__all__ = ["open_clip", "transforms"]
