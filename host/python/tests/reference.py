"""Attention in float64, on any device; imported only where PyTorch is.

`descale` is that of `fulgurite.attention`: what the stored numbers of q, k and v are multiplied
with."""
from __future__ import annotations

from typing import Any

import torch

from fulgurite._masks import ends_of

NEVER = float("-inf")


def attend(q: Any, k: Any, v: Any, mask: str, scale: float | None,
           descale: Any = None) -> tuple[Any, Any]:
    """Output in q's type, bf16 if that has 8 bits, and log-sum-exp in float32 of (batch, rows,
    heads, head_dim)."""
    out, lse = exact(q, k, v, mask, scale, descale)
    return out.to(torch.bfloat16 if q.dtype.itemsize == 1 else q.dtype), lse.float()


def unseen(mask: str, q: Any, k: Any) -> Any:
    """Which keys (columns) a mask keeps from which rows."""
    kind, left, right = ends_of(mask)
    right = 0 if kind == "causal" else right
    rows = torch.arange(q.shape[1], device=q.device)[:, None]
    behind = torch.arange(k.shape[1], device=q.device) - (rows + k.shape[1] - q.shape[1])
    none = torch.zeros_like(behind, dtype=torch.bool)
    hidden = none if right is None else behind > right
    return hidden if left is None else hidden | (behind < -left)


def exact(q: Any, k: Any, v: Any, mask: str, scale: float | None,
          descale: Any = None) -> tuple[Any, Any]:
    """Output and log-sum-exp in float64."""
    queries, keys, values = (tensor.double().transpose(1, 2) for tensor in (q, k, v))
    groups = q.shape[2] // k.shape[2]
    keys, values = (tensor.repeat_interleave(groups, 1) for tensor in (keys, values))
    of_q, of_k, of_v = (factor(one, groups) for one in descale or (None, None, None))
    queries, keys, values = queries * of_q, keys * of_k, values * of_v
    scores = queries @ keys.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores.masked_fill(unseen(mask, q, k), NEVER)
    lse = scores.logsumexp(-1)
    weights = (scores - lse.masked_fill(lse == NEVER, 0.0)[..., None]).exp()
    return (weights @ values).transpose(1, 2).contiguous(), lse.contiguous()


def factor(numbers: Any, groups: int) -> Any:
    """What to multiply (batch, heads, rows, head_dim) of as many heads as q with."""
    if numbers is None or isinstance(numbers, float) or numbers.numel() == 1:
        return 1.0 if numbers is None else float(numbers)
    if numbers.dim() == 3:
        return numbers.double()[..., None]
    return numbers.double().repeat_interleave(groups, 1)[..., None, None]
