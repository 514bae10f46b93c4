"""A small model of transformers with this attention, on the CPU with a stand-in body."""
from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch, which is not installed")
transformers = pytest.importorskip("transformers", reason="needs transformers")

import fulgurite  # noqa: E402
from fulgurite import _transformers  # noqa: E402
from fulgurite import torch as door  # noqa: E402
from test_torch import body  # noqa: E402


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(door, "on_cpu", body)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=128, max_position_embeddings=64)
    return transformers.LlamaForCausalLM(config).to(torch.bfloat16).eval()


TOKENS = [[5, 9, 3, 77, 4, 21, 8, 90], [1, 2, 3, 4, 5, 6, 7, 8]]


@torch.no_grad()
def test_a_model_computes_what_it_does_with_eager_attention(model: Any) -> None:
    tokens = torch.tensor(TOKENS)
    model.set_attn_implementation("eager")
    want = model(tokens).logits.float()
    model.set_attn_implementation(fulgurite.torch.enable_transformers())
    got = model(tokens, attention_mask=torch.ones_like(tokens)).logits.float()
    assert (got - want).abs().max() < 0.02 * want.abs().max()
    grown = model.generate(tokens, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert grown.shape == (2, 12)
    static = model.generate(tokens, max_new_tokens=4, do_sample=False, pad_token_id=0,
                            cache_implementation="static", disable_compile=True)
    assert torch.equal(static, grown)


@torch.no_grad()
def test_what_a_model_asks_for_beyond_is_named(model: Any) -> None:
    model.set_attn_implementation(fulgurite.torch.enable_transformers())
    tokens = torch.tensor(TOKENS)
    padded = torch.ones_like(tokens)
    padded[1, :3] = 0
    with pytest.raises(NotImplementedError, match="attention_mask=Tensor of shape"):
        model(tokens, attention_mask=padded)
    packed = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]])
    with pytest.raises(NotImplementedError, match="position_ids=Tensor of shape"):
        model(tokens[:1], position_ids=packed)
    q = torch.zeros(1, 4, 8, 16, dtype=torch.bfloat16)
    for name, value in (("softcap", 30.0), ("s_aux", q), ("dropout", 0.1),
                        ("cu_seq_lens_q", q), ("block_table", q)):
        with pytest.raises(NotImplementedError, match=f"{name}="):
            _transformers.attention_forward(model, q, q, q, None, is_causal=True, **{name: value})
    wide = _transformers.attention_forward(model, q, q, q, None, is_causal=True, sliding_window=8)
    assert wide[0].shape == (1, 8, 4, 16) and wide[1] is None


def test_training_is_refused(model: Any) -> None:
    model.set_attn_implementation(fulgurite.torch.enable_transformers())
    with pytest.raises(NotImplementedError, match="backward"):
        model(torch.tensor(TOKENS))


def test_positions_are_read_once_for_all_layers() -> None:
    positions = torch.tensor([[4, 5, 6, 7]])
    assert not _transformers.is_packed(positions, 1)
    assert _transformers._last is not None and _transformers._last[0]() is positions
    positions[0, 2] = 0
    assert _transformers.is_packed(positions, 1) and not _transformers.is_packed(positions, 2)
    assert not _transformers.is_packed(positions[:, :1], 1)
    assert not _transformers.is_packed(None, 1)
