"""Attention in float64 for some heads and rows of a call, and the judgement of a result."""
import torch

# Heads, over all batch entries, and rows of each that are compared.
HEADS = 8
ROWS = 32

# Relative error ||out - ref|| / ||ref|| that a right result stays below, by what it was computed
# in. Kernels that round probabilities to 16 bits have 2.3e-3 (bf16) and 2.8e-4 (f16) on long
# normal data; s8e4m3 was off bf16 by 0.034 to 0.041 on an H100; e4m3 has 0.053 by a model, and an
# output in e4m3 adds 0.026 (in squares).
RMS_LIMIT = {"bf16": 4e-3, "f16": 5e-4, "s8e4m3": 0.05, "s8x16": 0.02, "e4m3": 0.1}

# No element is off by more than this share of its row's root mean square, plus twice that share of
# an eighth of its own value (its rounding; in e4m3, half a unit of it is a sixteenth).
ELEMENT_LIMIT = {"bf16": 2.0**-5, "f16": 2.0**-8, "s8e4m3": 2.0**-1, "s8x16": 2.0**-3,
                 "e4m3": 2.0**-1}


def spread(count, total):
    """Up to `count` different indices below `total`, the first and the last among them."""
    if total <= count:
        return list(range(total))
    return [index * (total - 1) // (count - 1) for index in range(count)]


class Reference:
    """What rows of a call's result must be."""

    def __init__(self, q, k, v, causal):
        self.shape = q.shape
        batch, q_len, heads, head_dim = q.shape
        kv_len, group = k.shape[1], heads // k.shape[2]
        places = torch.tensor(spread(HEADS, batch * heads), device=q.device)
        self.rows = torch.tensor(spread(ROWS, q_len), device=q.device)
        self.entries, self.heads = places // heads, places % heads
        scores = self.take(q) @ self.take_head(k, group).transpose(1, 2)
        scores *= head_dim**-0.5
        if causal:
            last = self.rows[:, None] + (kv_len - q_len)
            unseen = torch.arange(kv_len, device=q.device)[None, :] > last
            scores.masked_fill_(unseen, float("-inf"))
        # A row that sees no key gives 0 / 0.
        weights = torch.softmax(scores, -1).nan_to_num_(0.0)
        self.wanted = weights @ self.take_head(v, group)

    def take(self, tensor):
        """The compared rows of q or of a result: [place, row, head_dim]."""
        return tensor[self.entries[:, None], self.rows[None, :], self.heads[:, None]].double()

    def take_head(self, tensor, group):
        """All rows of k or v that the compared rows meet: [place, row, head_dim]."""
        return tensor[self.entries, :, self.heads // group].double()

    def judge(self, out, scheme):
        """The relative error, and what is wrong with the result (None: nothing)."""
        if out.shape != self.shape:
            return None, f"shape {tuple(out.shape)}"
        if not bool(torch.isfinite(out).all()):
            return None, "elements that are not finite, or were not written"
        off = (self.take(out) - self.wanted).abs()
        rms = (off.norm() / self.wanted.norm()).item()
        share = ELEMENT_LIMIT[scheme]
        row_rms = self.wanted.square().mean(-1, keepdim=True).sqrt()
        allowed = share * row_rms + share / 4 * self.wanted.abs()
        if rms > RMS_LIMIT[scheme]:
            return rms, f"relative error {rms:.2e}, allowed is {RMS_LIMIT[scheme]:.0e}"
        if bool((off > allowed).any()):
            worst = (off - allowed).argmax().item()
            error, limit = off.flatten()[worst].item(), allowed.flatten()[worst].item()
            return rms, f"an element is off by {error:.2e}, allowed is {limit:.2e}"
        return rms, None
