"""What a causal language model says about chosen tokens, with the head run on those positions alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch

from hf_evol import models
from hf_evol.errors import ModelError
from hf_evol.models.packing import PackedLinear

# The head runs on blocks of so many tokens by so many of the vocabulary: on a CPU 4 MiB of logits, which stay in its
# caches; a GPU wants larger products. So memory does not grow with the vocabulary.
_BLOCK = {"cpu": (512, 2048), "cuda": (1024, 16384)}
_LEAST = 16  # rows of a product: from there on, a CPU's float32 results don't depend on how many there are
# Where a model's logits can't be had from its hidden states, all of a batch's logits are in memory at once.
_WHOLE_LOGITS = 2**26
# What is done to the head's output, by its names over the configurations of transformers' models.
_FACTORS, _DIVISOR = ("logit_scale", "lm_head_multiplier"), "logits_scaling"
_SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")

_split: WeakKeyDictionary[Any, SplitModel] = WeakKeyDictionary()


def split_model(model: Any) -> SplitModel:
    """The model's `SplitModel`, made and checked once."""
    if model not in _split:
        _split[model] = SplitModel(model)
    return _split[model]


class SplitModel:
    """A causal language model as a backbone, which gives hidden states, and a head, which gives logits.

    The split is compared with the model's own logits on a few tokens. A model whose logits are not those of its head
    (scaled or capped as its configuration says) is run whole, in smaller batches.

    Raises:
        ModelError: the model isn't causal.
    """

    def __init__(self, model: Any) -> None:
        self._model = ref(model)
        self.device = model.device
        head = model.get_output_embeddings()
        self.vocabulary = head.weight.shape[0]
        self.whole = getattr(model, "base_model", model) is model
        self.whole = self.whole or not self._agrees()
        if self.whole and not self._agrees():
            raise ModelError(
                f"{type(model).__name__} is not causal: later tokens change what it predicts for earlier ones. "
                "Score with a causal language model."
            )
        self.max_tokens = max(1, _WHOLE_LOGITS // self.vocabulary) if self.whole else None  # of one batch

    def losses(self, ids: np.ndarray, rows: np.ndarray, positions: np.ndarray) -> torch.Tensor:
        """The losses of the tokens at ``(rows, positions)``, in nats and in float32 whatever the model's precision.

        There is no attention mask: under a causal model, padding on the right changes nothing before it, and fused
        attention needs no mask.

        Args:
            ids: token ids, padded on the right, shape (sequences, longest).
            rows: of each wanted token, its sequence.
            positions: of each wanted token, its position, from 1 on; the first token is never predicted.
        """
        count = len(positions)
        places = np.ones((2, -(-count // _LEAST) * _LEAST), dtype=np.int64)
        places[0, :count], places[0, count:], places[1, :count] = rows, 0, positions
        tokens = torch.from_numpy(ids).to(self.device)
        with torch.inference_mode():
            states = self._states(tokens)
            parts = [
                self._losses(states[row, position - 1], tokens[row, position]).to(self.device)
                for row, position in torch.from_numpy(places).to(self.device).split(self._block[0], dim=1)
            ]
            return torch.cat(parts)[:count]

    @property
    def _block(self) -> tuple[int, int]:
        return _BLOCK.get(self.device.type, _BLOCK["cpu"])

    def _states(self, tokens: torch.Tensor) -> torch.Tensor:
        model = self._model()
        if self.whole:
            return model(input_ids=tokens, use_cache=False).logits
        return model.base_model(input_ids=tokens, use_cache=False)[0]

    def _losses(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log-sum-exp over the vocabulary, of that over each of its blocks, less the target's logit."""
        targets, start = targets.to(states.device), 0
        sums, chosen = [], torch.zeros(len(states), device=states.device)
        for logits in self._logits(states):
            width = logits.shape[1]
            here = (targets >= start) & (targets < start + width)
            logit = logits.gather(1, (targets - start).clamp(0, width - 1)[:, None])[:, 0]
            chosen = torch.where(here, logit, chosen)
            highest = logits.amax(-1, keepdim=True)
            sums.append(logits.sub_(highest).exp_().sum(-1).log_().add_(highest[:, 0]))
            start += width
        return torch.logsumexp(torch.stack(sums), 0) - chosen

    def _logits(self, states: torch.Tensor) -> Iterator[torch.Tensor]:
        """Blocks of the logits, in float32, along the vocabulary."""
        if self.whole:
            yield states.float()
            return
        model = self._model()
        head = model.get_output_embeddings()
        if isinstance(head, PackedLinear):
            yield from map(self._scaled, head.blocks(states))
            return
        if type(head) is not torch.nn.Linear:  # quantized, or with an adapter
            yield self._scaled(head(states))
            return
        bias = [None] * len(head.weight) if head.bias is None else head.bias.split(self._block[1])
        for weight, part in zip(head.weight.split(self._block[1]), bias, strict=False):
            yield self._scaled(torch.nn.functional.linear(states.to(weight.device), weight, part))

    def _scaled(self, logits: torch.Tensor) -> torch.Tensor:
        logits, config = logits.float(), self._model().config.get_text_config()
        for name in (*_FACTORS, _DIVISOR, *_SOFT_CAPS):
            value = getattr(config, name, None)
            if not isinstance(value, (int, float)) or not value:
                continue
            if name in _SOFT_CAPS:
                logits = logits.div_(value).tanh_().mul_(value)
            else:
                logits = logits.div_(value) if name == _DIVISOR else logits.mul_(value)
        return logits

    def _agrees(self) -> bool:
        """Whether logits made this way, beside padding, are the model's own for the same tokens alone."""
        model = self._model()
        length = min(8, models.context_length(model.config) // 2)
        tokens = torch.arange(10, 10 + length, device=self.device)[None] % self.vocabulary
        padded = torch.cat([tokens, tokens.flip(-1)], -1)
        with torch.inference_mode():
            own = model(input_ids=tokens, use_cache=False).logits[0].float()
            states = self._states(padded)[0, :length]
            if not self.whole and states.shape[-1] != model.get_output_embeddings().weight.shape[-1]:
                return False
            ours = torch.cat(list(self._logits(states)), -1)
        if ours.shape != own.shape:
            return False
        if not own.isfinite().all():  # broken weights: each row's status will say so
            return True
        allowed = 1e-4 if model.dtype == torch.float32 else 0.03  # rounding depends on the batch's shape
        return bool((ours - own).abs().mean() <= allowed * own.abs().mean())
