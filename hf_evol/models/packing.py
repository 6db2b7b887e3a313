"""Linear layers whose weights lie as oneDNN reads them: a CPU then takes a third to two thirds of the time for a batch's products."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

_BLOCK = 2048  # outputs of a head at once: 512 tokens have 4 MiB of logits then, which stay in a CPU's caches
_CLOSE = {torch.float32: 1e-3, torch.bfloat16: 0.05}  # of the outputs' mean size; what roundings do is far below


class PackedLinear(torch.nn.Module):
    """A linear layer for inference, with another's weights, packed; a head's in blocks of its outputs.

    PyTorch packs weights so in models that it compiles, and has no public names for it.
    """

    def __init__(self, linear: torch.nn.Linear, block: int | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        parts = linear.weight.detach().split(block or linear.out_features)
        self.parts = [torch.ops.mkldnn._reorder_linear_weight(part.contiguous()) for part in parts]
        bias = linear.bias
        self.biases = [None] * len(parts) if bias is None else bias.detach().split(block or linear.out_features)
        self.weight = linear.weight if block else self.parts[0]  # a head's is often the embedding's, too

    def blocks(self, inputs: torch.Tensor) -> Iterator[torch.Tensor]:
        """The outputs, by blocks."""
        for part, bias in zip(self.parts, self.biases, strict=True):
            yield torch.ops.mkldnn._linear_pointwise(inputs, part, bias, "none", [], "")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = list(self.blocks(inputs))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)


def pack(model: torch.nn.Module, run: Callable[[], torch.Tensor]) -> bool:
    """Pack the linear layers of a model on a CPU where that is possible and changes nothing but roundings; says whether it was.

    The first layers of each kind are tried before the others: there are models that read the weights of a layer.

    Args:
        run: gives some output of the model.
    """
    kinds: dict[str, list[tuple[torch.nn.Module, str, Any]]] = {}
    for path, module in model.named_modules():
        for name, layer in module.named_children():
            if _can_be_packed(layer):
                kinds.setdefault(re.sub(r"\d+", "", f"{path}.{name}"), []).append((module, name, layer))
    if not kinds:
        return False
    firsts, head = [places[0] for places in kinds.values()], getattr(model, "get_output_embeddings", lambda: None)()

    def replace(places: list[tuple[torch.nn.Module, str, Any]]) -> None:
        for module, name, layer in places:
            setattr(module, name, PackedLinear(layer, _BLOCK if layer is head else None))

    with torch.inference_mode():
        try:
            before = run()
            replace(firsts)
            after = run()
            done = (after - before).abs().mean() <= _CLOSE[before.dtype] * before.abs().mean()
        except Exception:  # whatever a model of any kind makes of it
            done = False
    if not done:
        for module, name, layer in firsts:
            setattr(module, name, layer)
        return False
    for places in kinds.values():
        while len(places) > 1:  # one by one, so that few weights are there twice
            replace([places.pop()])
    return True


def _can_be_packed(layer: torch.nn.Module) -> bool:
    if type(layer) is not torch.nn.Linear or layer.weight.device.type != "cpu":
        return False
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return False
    ops, dtype = torch.ops.mkldnn, layer.weight.dtype
    if not all(
        hasattr(ops, name) for name in ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    ):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and ops._is_mkldnn_bf16_supported())
