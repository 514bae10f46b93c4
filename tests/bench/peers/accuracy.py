"""The error of whole calls against attention in float64 of numbers that nobody has rounded."""
import json
import os
import struct

import torch

import implementations
from reference import spread

# Those that are compared.
COMPARED = ("fulgurite", "fa3", "fa3-fp8", "cudnn-fp8")

# Dtypes of a call, and to what type of 16 bits the numbers are rounded for it. Those of 8 bits get
# f16: its rounding is small beside theirs.
TENSORS = {"bf16": torch.bfloat16, "f16": torch.float16, "s8e4m3": torch.float16,
           "s8x16": torch.float16, "e4m3": torch.float16}

# Rows of a head that are compared, and of which the float64 reference is computed at a time.
ROWS = 2048
CHUNK_ROWS = 512

SEED = 4


def normal(shape, generator):
    return torch.randn(shape, device="cuda", dtype=torch.float64, generator=generator)


def with_outliers(shape, generator):
    """N(0, 1), and one of a thousand with N(0, 100) added: the FlashAttention-3 paper's test."""
    chosen = torch.rand(shape, device="cuda", dtype=torch.float64, generator=generator) < 0.001
    return normal(shape, generator) + 10 * normal(shape, generator) * chosen


def with_means(shape, generator):
    """N(0, 1), and added to each column of a head a mean that is N(0, 1)."""
    batch, _, heads, head_dim = shape
    return normal(shape, generator) + normal((batch, 1, heads, head_dim), generator)


# What q, k and v are made by.
DRAWN = {"normal": (normal, normal, normal),
         "outlier": (with_outliers, with_outliers, with_outliers),
         "biased": (normal, normal, with_means)}


def stored(name):
    """q, k and v of a layer of the language model: `minilm-layer0` and `minilm-layer5`."""
    path = os.path.join(implementations.HERE, "minilm.safetensors")
    with open(path, "rb") as file:
        content = file.read()
    size = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8:8 + size]), bytearray(content[8 + size:])
    layer = name.removeprefix("minilm-")

    def tensor(part):
        entry = header[f"{layer}.{part}"]
        start, end = entry["data_offsets"]
        numbers = torch.frombuffer(data, dtype=torch.float16, offset=start,
                                   count=(end - start) // 2)
        # The file has [batch, heads, rows, head_dim].
        return numbers.view(entry["shape"]).transpose(1, 2).double().contiguous().cuda()

    return [tensor(part) for part in "qkv"]


def inputs(problem):
    """q, k and v in float64, [batch, rows, heads, head_dim]."""
    if problem["data"] not in DRAWN:
        return stored(problem["data"])
    generator = torch.Generator(device="cuda").manual_seed(SEED)
    shape = tuple(problem[size] for size in ("batch", "rows", "heads", "head_dim"))
    return [draw(shape, generator) for draw in DRAWN[problem["data"]]]


def attention(q, k, v, rows):
    """Attention in float64, of these rows of each head."""
    out = torch.empty_like(q[:, rows])
    for entry in range(q.shape[0]):
        for head in range(q.shape[2]):
            keys, values = k[entry, :, head], v[entry, :, head]
            for start in range(0, len(rows), CHUNK_ROWS):
                scores = q[entry, rows[start:start + CHUNK_ROWS], head] @ keys.T
                weights = torch.softmax(scores * q.shape[-1] ** -0.5, -1)
                out[entry, start:start + CHUNK_ROWS, head] = weights @ values
    return out


def errors(problem, peers):
    """Yields (peer, scheme, what was found) for all that take the problem: the root mean square of
    the error and its share of that of the right answer, or the exception."""
    exact = inputs(problem)
    rows = torch.tensor(spread(ROWS, problem["rows"]), device=exact[0].device)
    wanted = attention(*exact, rows)
    size = wanted.square().mean().sqrt().item()
    for dtype, kind in TENSORS.items():
        tensors = [tensor.to(kind) for tensor in exact]
        cell = {"dtype": dtype, "head_dim": problem["head_dim"], "causal": False,
                "heads": problem["heads"], "heads_kv": problem["heads"],
                "q_len": problem["rows"], "kv_len": problem["rows"], "batch": problem["batch"]}
        for peer in peers:
            if dtype not in peer.dtypes:
                continue
            try:
                rmse = error(peer, cell, tensors, rows, wanted)
                found = (rmse, rmse / size)
            except Exception as exception:  # whatever a peer raises, the others go on
                found = exception
            yield peer, peer.scheme(dtype), found


def error(peer, cell, tensors, rows, wanted):
    """The root mean square of the error of a peer's call."""
    call = peer.prepare(cell, *tensors)
    with peer.context():
        result = peer.decoded(call())
    if result.shape != tensors[0].shape:
        raise ValueError(f"its result has the shape {tuple(result.shape)}")
    if not bool(torch.isfinite(result).all()):
        raise ValueError("its result has elements that are not finite, or were not written")
    return (result[:, rows].double() - wanted).square().mean().sqrt().item()
