"""Record the attention weights of a transformer while it runs, whichever library it comes from.

A torch-function mode sees the calls of `scaled_dot_product_attention`, `multi_head_attention_forward` and `softmax`.
Fused attention, which hides its weights, is computed step by step instead. The network itself is not touched.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from camlab.errors import UserError

_SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax}
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


class AttentionRecorder(TorchFunctionMode):
    """Keeps the attention weights of the calls within the context; a graph is recorded from the first call on.

    Attributes:
        begun: How often a graph was begun; more than once where parts of the network run in `no_grad`.
        weights: Attention weights in the order of the calls, N×E×Q×K (E heads, Q queries, K keys). In windowed
            attention the first axis is longer than the batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []
        self.begun = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._scaled_dot_product(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        output = func(*args, **kwargs)
        if func in _SOFTMAX and output.dim() == 4:
            return self._keep(output)
        return output

    def _keep(self, weights: Tensor) -> Tensor:
        """Keep attention weights. The first of them become a leaf of the graph, as nothing before them is needed."""
        if not weights.requires_grad:
            weights = weights.detach().requires_grad_()
            self.begun += 1
            torch.set_grad_enabled(True)  # for the rest of the pass; the caller's `no_grad` restores the mode
        self.weights.append(weights)
        return weights

    def _scaled_dot_product(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """What F.scaled_dot_product_attention computes, without dropout, since the network is in eval mode."""
        if is_causal or enable_gqa:
            raise UserError("The network's attention is causal or shares keys between heads; neither is supported.")
        scores = query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale) @ key.transpose(-2, -1)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        weights = scores.softmax(dim=-1)
        return (self._keep(weights) if weights.dim() == 4 else weights) @ value

    def _multi_head(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """What F.multi_head_attention_forward computes for self-attention; tensors are T×N×D."""
        given = _MULTI_HEAD.bind(*args, **kwargs).arguments
        unusual = ("bias_k", "bias_v", "key_padding_mask", "attn_mask", "static_k", "static_v", "q_proj_weight")
        if any(given.get(name) is not None for name in unusual) or given.get("add_zero_attn"):
            raise UserError("The network's attention has masks or additional keys, which are not supported.")
        query, heads = given["query"], given["num_heads"]
        parts = given["in_proj_weight"].chunk(3)
        biases = (None, None, None) if given["in_proj_bias"] is None else given["in_proj_bias"].chunk(3)
        q, k, v = (
            F.linear(x, part, bias).unflatten(2, (heads, -1)).permute(1, 2, 0, 3)  # N×E×T×d
            for x, part, bias in zip((query, given["key"], given["value"]), parts, biases, strict=True)
        )
        mixed = self._scaled_dot_product(q, k, v).permute(2, 0, 1, 3).flatten(2)
        weights = self.weights[-1] if given.get("need_weights", True) else None
        if weights is not None and given.get("average_attn_weights", True):
            weights = weights.mean(dim=1)
        return F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"]), weights
