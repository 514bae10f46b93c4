"""Gradients: the calls of those who have them, and the judgement of what they give."""
import torch

from reference import RMS_LIMIT, spread

# Heads whose gradients are compared whole, the first and the last.
HEADS = 2

# Query rows whose scores are there at a time.
CHUNK = 1024


def call_of(peer, cell, q, k, v, d_out):
    """The call of a peer: of the gradients alone, or of the forward and them."""
    if hasattr(peer, "prepare_gradients"):
        return peer.prepare_gradients(cell, q, k, v, d_out)
    inputs = [tensor.detach().requires_grad_() for tensor in (q, k, v)]
    with torch.enable_grad():
        # Views that it makes now shall lead back to the inputs.
        forward = peer.prepare(cell, *inputs)
        out = forward() if cell["kind"] == "bwd" else None
    if out is not None:
        return lambda: torch.autograd.grad(out, inputs, d_out, retain_graph=True)

    def both():
        with torch.enable_grad():
            out = forward()
        return torch.autograd.grad(out, inputs, d_out)

    return both


class Reference:
    """What gradients of some heads must be, in float64."""

    def __init__(self, q, k, v, d_out, causal):
        self.shapes = [tensor.shape for tensor in (q, k, v)]
        self.group = q.shape[2] // k.shape[2]
        kv_heads = k.shape[2]
        self.places = [(index // kv_heads, index % kv_heads)
                       for index in spread(HEADS, q.shape[0] * kv_heads)]
        self.wanted = [self.of_head(q, k, v, d_out, causal, *place) for place in self.places]

    def of_head(self, q, k, v, d_out, causal, entry, kv_head):
        """dq, dk and dv of a KV head and the query heads that read it, each (heads, rows,
        columns)."""
        keys, values = (tensor[entry, :, kv_head].double() for tensor in (k, v))
        q_len, scale = q.shape[1], q.shape[3] ** -0.5
        dk, dv = torch.zeros_like(keys), torch.zeros_like(values)
        all_dq = []
        for head in range(kv_head * self.group, (kv_head + 1) * self.group):
            dq = []
            for start in range(0, q_len, CHUNK):
                rows = slice(start, min(start + CHUNK, q_len))
                queries, gradient = (tensor[entry, rows, head].double() for tensor in (q, d_out))
                scores = queries @ keys.T * scale
                if causal:
                    last = torch.arange(rows.start, rows.stop, device=q.device)[:, None]
                    columns = torch.arange(keys.shape[0], device=q.device)[None, :]
                    scores.masked_fill_(columns > last + (keys.shape[0] - q_len), float("-inf"))
                weights = torch.softmax(scores, -1).nan_to_num_(0.0)
                of_weights = gradient @ values.T
                delta = (weights * of_weights).sum(-1, keepdim=True)
                of_scores = weights * (of_weights - delta) * scale
                dq.append(of_scores @ keys)
                dk += of_scores.T @ queries
                dv += weights.T @ gradient
            all_dq.append(torch.cat(dq))
        return torch.stack(all_dq), dk[None], dv[None]

    def judge(self, gradients, scheme):
        """The largest relative error of the three, and what is wrong with them (None: nothing)."""
        worst = 0.0
        for index, (name, got, shape) in enumerate(zip(("dq", "dk", "dv"), gradients, self.shapes)):
            if got.shape != shape:
                return None, f"{name} has the shape {tuple(got.shape)}"
            if not bool(torch.isfinite(got).all()):
                return None, f"{name} has elements that are not finite, or were not written"
            off, size = 0.0, 0.0
            for (entry, kv_head), wanted in zip(self.places, self.wanted):
                heads = self.group if index == 0 else 1
                part = got[entry, :, kv_head * heads:(kv_head + 1) * heads].transpose(0, 1).double()
                off += (part - wanted[index]).square().sum().item()
                size += wanted[index].square().sum().item()
            rms = (off / size) ** 0.5
            # Two products in 16 bits where the forward has one, and sums of both signs.
            if rms > 2 * RMS_LIMIT[scheme]:
                return rms, f"{name}: relative error {rms:.2e}"
            worst = max(worst, rms)
        return worst, None
