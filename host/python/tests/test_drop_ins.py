"""The names, arguments and refusals of FlashAttention's functions; no PyTorch needed."""
from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import pytest

import fulgurite
from fulgurite import _drop_in, flash_attn, flash_attn_interface

# As in FlashAttention 0251105 (2026-08-15): flash_attn/flash_attn_interface.py and
# hopper/flash_attn_interface.py.
SCORES = "softmax_scale=None causal=False"
TAIL2 = ("window_size=(-1, -1) softcap=0.0 alibi_slopes=None deterministic=False "
         "return_attn_probs=False")
LENGTHS = "cu_seqlens_q cu_seqlens_k max_seqlen_q max_seqlen_k"
DESCALES = "q_descale=None k_descale=None v_descale=None"
TAIL3 = ("window_size=(-1, -1) attention_chunk=0 softcap=0.0 num_splits=1 pack_gqa=None "
         "deterministic=False sm_margin=0 return_attn_probs=False")
FA2 = {
    "flash_attn_func": f"q k v dropout_p=0.0 {SCORES} {TAIL2}",
    "flash_attn_kvpacked_func": f"q kv dropout_p=0.0 {SCORES} {TAIL2}",
    "flash_attn_qkvpacked_func": f"qkv dropout_p=0.0 {SCORES} {TAIL2}",
    "flash_attn_varlen_func": f"q k v {LENGTHS} dropout_p=0.0 {SCORES} {TAIL2} block_table=None",
    "flash_attn_varlen_kvpacked_func": f"q kv {LENGTHS} dropout_p=0.0 {SCORES} {TAIL2}",
    "flash_attn_varlen_qkvpacked_func": f"qkv cu_seqlens max_seqlen dropout_p=0.0 {SCORES} {TAIL2}",
    "flash_attn_with_kvcache":
        "q k_cache v_cache k=None v=None rotary_cos=None rotary_sin=None cache_seqlens=None "
        f"cache_batch_idx=None cache_leftpad=None block_table=None {SCORES} window_size=(-1, -1) "
        "softcap=0.0 rotary_interleaved=True alibi_slopes=None num_splits=0 "
        "return_softmax_lse=False",
}
FA3 = {
    "flash_attn_func": f"q k v {SCORES} qv=None {DESCALES} {TAIL3}",
    "flash_attn_qkvpacked_func":
        f"qkv {SCORES} {DESCALES} window_size=(-1, -1) attention_chunk=0 softcap=0.0 "
        "deterministic=False num_heads_q=None sm_margin=0 return_attn_probs=False",
    "flash_attn_varlen_func":
        f"q k v {LENGTHS} seqused_q=None seqused_k=None {SCORES} qv=None {DESCALES} {TAIL3}",
    "flash_attn_combine": "out_partial lse_partial out=None out_dtype=None",
    "flash_attn_with_kvcache":
        "q k_cache v_cache k=None v=None qv=None rotary_cos=None rotary_sin=None "
        "cache_seqlens=None cache_batch_idx=None cache_leftpad=None page_table=None "
        "cu_seqlens_q=None cu_seqlens_k_new=None max_seqlen_q=None rotary_seqlens=None "
        f"{DESCALES} {SCORES} window_size=(-1, -1) attention_chunk=0 softcap=0.0 "
        "rotary_interleaved=True scheduler_metadata=None num_splits=0 pack_gqa=None sm_margin=0 "
        "return_softmax_lse=False",
}


@pytest.mark.parametrize(("module", "functions"), [(flash_attn, FA2), (flash_attn_interface, FA3)])
def test_arguments_are_theirs(module: Any, functions: dict[str, str]) -> None:
    for name, arguments in functions.items():
        own = []
        for one in inspect.signature(getattr(module, name)).parameters.values():
            default = "" if one.default is one.empty else f"={one.default!r}"
            own.append(one.name + default)
        assert " ".join(own) == arguments, name


@dataclass(frozen=True)
class Dtype:
    """An element type."""

    name: str
    itemsize: int


class Array:
    """Something with a shape and a type."""

    def __init__(self, *shape: int, dtype: Dtype = Dtype("bfloat16", 2)) -> None:
        self.shape, self.dtype = shape, dtype

    def __getitem__(self, index: Any) -> Any:
        return self


Q, KV = Array(1, 4, 2, 64), Array(1, 8, 2, 64)
REFUSED2 = {"dropout_p": 0.1, "softcap": 30.0, "alibi_slopes": Array(2)}
REFUSED3 = {"qv": Array(2), "attention_chunk": 8, "softcap": 30.0}
REFUSED_CACHE = {"rotary_cos": Array(2), "rotary_sin": Array(2), "cache_batch_idx": Array(2),
                 "cache_leftpad": Array(2), "cache_seqlens": Array(2), "softcap": 30.0}


def refused(function: Any, arguments: tuple[Any, ...], **values: Any) -> None:
    """Each value, alone, is refused with its name."""
    for name, value in values.items():
        shown = r"Array of shape \(2,\)" if isinstance(value, Array) else \
            repr(value).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(NotImplementedError, match=f"{name}={shown} is not supported"):
            function(*arguments, **{name: value})


def test_what_fa2_has_and_we_have_not_is_named() -> None:
    refused(flash_attn.flash_attn_func, (Q, KV, KV), **REFUSED2)
    packed = Array(1, 8, 2, 2, 64)
    for function, arguments in ((flash_attn.flash_attn_kvpacked_func, (Q, packed)),
                                (flash_attn.flash_attn_qkvpacked_func, (Array(1, 8, 3, 2, 64),))):
        refused(function, arguments, dropout_p=0.1, softcap=30.0, alibi_slopes=Array(2))
    refused(flash_attn.flash_attn_with_kvcache, (Q, KV, KV), **REFUSED_CACHE,
            block_table=Array(2), alibi_slopes=Array(2))
    for name in ("flash_attn_varlen_func", "flash_attn_varlen_kvpacked_func",
                 "flash_attn_varlen_qkvpacked_func"):
        function = getattr(flash_attn, name)
        needed = [one for one in inspect.signature(function).parameters.values()
                  if one.default is one.empty]
        with pytest.raises(NotImplementedError, match="cu_seqlens.*=None is not supported"):
            function(*[None] * len(needed))


def test_what_fa3_has_and_we_have_not_is_named() -> None:
    refused(flash_attn_interface.flash_attn_func, (Q, KV, KV), **REFUSED3)
    refused(flash_attn_interface.flash_attn_with_kvcache, (Q, KV, KV), **REFUSED_CACHE,
            qv=Array(2), page_table=Array(2), cu_seqlens_q=Array(2), cu_seqlens_k_new=Array(2),
            rotary_seqlens=Array(2), attention_chunk=8)
    with pytest.raises(NotImplementedError, match="cu_seqlens_q=None"):
        flash_attn_interface.flash_attn_varlen_func(Q, KV, KV, None, None, 4, 8)
    with pytest.raises(NotImplementedError, match="flash_attn_combine"):
        flash_attn_interface.flash_attn_combine(None, None)
    with pytest.raises(NotImplementedError, match="get_scheduler_metadata"):
        flash_attn_interface.get_scheduler_metadata(1, 2, page_size=3)


@pytest.mark.parametrize("name", ["q_descale", "k_descale", "v_descale"])
def test_numbers_that_tensors_of_16_bits_have_no_use_for_are_named(name: str) -> None:
    message = rf"{name}=Array of shape \(2,\), but q has elements of type .*bfloat16"
    for function, arguments in ((flash_attn_interface.flash_attn_func, (Q, KV, KV)),
                                (flash_attn_interface.flash_attn_qkvpacked_func,
                                 (Array(1, 8, 3, 2, 64),)),
                                (flash_attn_interface.flash_attn_with_kvcache, (Q, KV, KV))):
        with pytest.raises(fulgurite.RequestError, match=message):
            function(*arguments, **{name: Array(2)})
    eight = Array(1, 8, 2, 64, dtype=Dtype("float8_e4m3fn", 1))
    with pytest.raises(fulgurite.ArgumentError, match=f"descale of {name[0]} is 0.5"):
        flash_attn_interface.flash_attn_func(eight, eight, eight, **{name: 0.5})


def test_masks_of_causal_and_window() -> None:
    mask = _drop_in.drop_in_mask
    assert mask(False, (-1, -1)) is fulgurite.FULL
    assert mask(True, (-1, -1)) is mask(True, (-1, 7)) is mask(False, (-1, 0)) is fulgurite.CAUSAL
    assert mask(True, (5, 7)).name == "window:5:0" and mask(False, (5, -1)).name == "window:5:*"
    assert mask(False, (1 << 40, 3)).name == "window:*:3"
    with pytest.raises(fulgurite.ArgumentError, match="window_size"):
        mask(True, (1, 2, 3))  # type: ignore[arg-type]


def test_rows_without_keys_are_known() -> None:
    rows = _drop_in.has_keyless_rows
    assert rows(1, 0, False, (-1, -1)) and rows(5, 4, True, (-1, -1))
    assert not rows(4, 4, True, (-1, -1)) and not rows(5, 4, False, (-1, -1))


def test_caches_are_checked_before_they_are_written() -> None:
    use = _drop_in.cache_in_use
    for message, k, v, length in (("give both", KV, None, 1), ("say where", KV, KV, None),
                                  ("the cache has 8", KV, KV, 1),
                                  ("the cache has 8", None, None, 9),
                                  ("cache_seqlens=-1", None, None, -1)):
        with pytest.raises(ValueError, match=message):
            use(Q, KV, KV, k, v, length, False, (-1, -1))
    eight = Array(1, 4, 2, 64, dtype=Dtype("float8_e4m3fn", 1))
    for pair in ((eight, KV), (KV, eight)):
        with pytest.raises(fulgurite.RequestError, match=f"{'kv'[pair[0] is KV]} has elements of "):
            use(Q, KV, KV, *pair, 4, True, (-1, -1))
    # A write into this array would fail: it takes no item assignment.
    with pytest.raises(fulgurite.ArgumentError, match="window_size"):
        use(Q, KV, KV, Array(1, 4, 2, 64), Array(1, 4, 2, 64), 4, True, (2,))


def test_packed_tensors_have_their_shape() -> None:
    with pytest.raises(fulgurite.RequestError, match=r"qkv has the shape \(1, 8, 2, 2, 64\)"):
        flash_attn.flash_attn_qkvpacked_func(Array(1, 8, 2, 2, 64))
    for heads, num_heads_q in ((6, None), (6, 3), (6, 6)):
        with pytest.raises(fulgurite.ArgumentError, match="num_heads_q"):
            flash_attn_interface.flash_attn_qkvpacked_func(Array(1, 8, heads, 64),
                                                           num_heads_q=num_heads_q)
