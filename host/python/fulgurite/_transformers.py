"""Attention for transformers' models: `fulgurite.torch.enable_transformers` registers it."""
from __future__ import annotations

import weakref
from typing import Any

import torch

from ._drop_in import dense
from ._errors import not_there, refuse, shown

NAME = "fulgurite"
"""What `model.set_attn_implementation` takes."""


def register() -> None:
    """Registers attention and its mask under `NAME`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    AttentionInterface.register(NAME, attention_forward)
    # Without a mask function of its own an implementation is handed a dense mask of four axes.
    # This one gives none where every key counts.
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["flash_attention_2"])


def attention_forward(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor,
                      value: torch.Tensor, attention_mask: torch.Tensor | None,
                      scaling: float | None = None, dropout: float = 0.0,
                      sliding_window: int | None = None, softcap: float | None = None,
                      is_causal: bool | None = None, s_aux: torch.Tensor | None = None,
                      position_ids: torch.Tensor | None = None,
                      **options: Any) -> tuple[torch.Tensor, None]:
    """query is (batch, heads, rows, head_dim), key and value (batch, kv_heads, kv_rows, head_dim);
    the result is (batch, rows, heads, head_dim), and no weights.

    Raises `UnsupportedError` for padding among the keys, sequences packed into one, dropout,
    softcap and sinks.
    """
    refuse(softcap=softcap or None, s_aux=s_aux, dropout=dropout or None)
    for name in ("cu_seq_lens_q", "cu_seq_lens_k", "block_table", "position_bias", "head_mask"):
        refuse(**{name: options.get(name)})
    if is_packed(position_ids, query.shape[0]):
        raise not_there("position_ids", position_ids, "they start anew within a row, so that it "
                        "holds several sequences; pass these as batch entries")
    if attention_mask is not None:
        key, value = (used_keys(attention_mask, tensor) for tensor in (key, value))
    causal = bool(is_causal if is_causal is not None else getattr(module, "is_causal", True))
    reach = -1 if sliding_window is None else sliding_window - 1
    head_dim, value_dim = query.shape[-1], value.shape[-1]
    if value_dim < head_dim:
        value = torch.nn.functional.pad(value, [0, head_dim - value_dim])
    out, _ = dense(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), scaling,
                   causal, (reach, reach), False)
    return out[..., :value_dim], None


def used_keys(mask: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The rows of a cache that a mask (batch, keys) speaks of: the first ones, all of them in use.

    Raises `UnsupportedError` for any other mask. Reading it waits for the GPU.
    """
    if mask.dim() != 2 or mask.shape[1] > tensor.shape[2] or not bool(mask.all()):
        raise not_there("attention_mask", mask, "padding needs sequences of different lengths; "
                        f"only masks without padding are taken, not {shown(mask)}")
    return tensor[:, :, :mask.shape[1]]


# The last position_ids that were read: all layers of a model get the same ones.
_last: tuple[weakref.ref[torch.Tensor], int, bool] | None = None


def is_packed(position_ids: torch.Tensor | None, batch: int) -> bool:
    """Whether positions start anew within the one row of a batch, which is how transformers packs
    sequences. Reading them waits for the GPU, once for all layers."""
    global _last
    if position_ids is None or batch != 1 or position_ids.shape[-1] == 1:
        return False
    version: int = position_ids._version
    if _last is not None and _last[0]() is position_ids and _last[1] == version:
        return _last[2]
    answer = bool((position_ids.diff(dim=-1) != 1).any())
    _last = (weakref.ref(position_ids), version, answer)
    return answer
