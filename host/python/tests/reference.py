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
    groups = q.shape[2] // k.shape[2]
    of_q, of_k, of_v = (factor(one, groups) for one in descale or (None, None, None))
    queries, keys, values = (one * by for one, by in zip(by_head(q, k, v), (of_q, of_k, of_v)))
    weights, lse = softmax(queries, keys, unseen(mask, q, k), scale)
    return (weights @ values).transpose(1, 2).contiguous(), lse.contiguous()


def by_head(q: Any, k: Any, v: Any) -> tuple[Any, Any, Any]:
    """Queries, keys and values of each query head, (batch, heads, rows, head_dim)."""
    queries, keys, values = (tensor.double().transpose(1, 2) for tensor in (q, k, v))
    groups = q.shape[2] // k.shape[2]
    return queries, keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)


def softmax(queries: Any, keys: Any, hidden: Any, scale: float | None) -> tuple[Any, Any]:
    """Weights, 0 in rows that see no key, and the log-sum-exp."""
    scores = queries @ keys.mT * (queries.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores.masked_fill(hidden, NEVER)
    lse = scores.logsumexp(-1)
    return (scores - lse.masked_fill(lse == NEVER, 0.0)[..., None]).exp(), lse


def factor(numbers: Any, groups: int) -> Any:
    """What to multiply (batch, heads, rows, head_dim) of as many heads as q with."""
    if numbers is None or isinstance(numbers, float) or numbers.numel() == 1:
        return 1.0 if numbers is None else float(numbers)
    if numbers.dim() == 3:
        return numbers.double()[..., None]
    return numbers.double().repeat_interleave(groups, 1)[..., None, None]


def gradients(q: Any, k: Any, v: Any, mask: str, scale: float | None, d_out: Any,
              d_lse: Any) -> tuple[Any, ...]:
    """Gradients of q, k and v in float64, contiguous."""
    queries, keys, values = by_head(q, k, v)
    weights, _ = softmax(queries, keys, unseen(mask, q, k), scale)
    of_rows = d_out.double().transpose(1, 2)
    of_weights = of_rows @ values.mT
    of_scores = of_weights - (weights * of_weights).sum(-1, keepdim=True)
    if d_lse is not None:
        of_scores = of_scores + d_lse.double()[..., None]
    of_scores = weights * of_scores * (q.shape[-1] ** -0.5 if scale is None else scale)
    shape = (q.shape[0], k.shape[2], q.shape[2] // k.shape[2], *k.shape[1::2])
    dk, dv = ((factors.mT @ rows).view(shape).sum(2)
              for factors, rows in ((of_scores, queries), (weights, of_rows)))
    return tuple(one.transpose(1, 2).contiguous() for one in (of_scores @ keys, dk, dv))
