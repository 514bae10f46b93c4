"""Those that are given numbers of 8 bits (e4m3): peers, and ourselves. They get them from PyTorch
before their calls, which hold no quantising: the peers' own benchmarks time them so, too."""
import torch

from implementations import FlashAttention3, Fulgurite, Implementation, import_from, version

E4M3 = torch.float8_e4m3fn
E4M3_MAX = 448.0

# The e4m3 NaN, as a byte.
E4M3_NAN = 0x7F


def quantised(tensor, kv_heads):
    """A tensor [batch, rows, heads, head_dim] in e4m3, with one scale for the heads of each of
    `kv_heads` KV heads of a batch entry, and what to multiply them with: [batch, kv_heads]."""
    grouped = tensor.unflatten(2, (kv_heads, -1)).float()
    scale = (grouped.abs().amax((1, 3, 4)) / E4M3_MAX).clamp_min(2.0**-126)
    scaled = grouped / scale[:, None, :, None, None]
    return scaled.flatten(2, 3).to(E4M3).contiguous(), scale


class EightBits(Implementation):
    """What these peers share: all of our formats are compared with their one."""
    dtypes = ("s8e4m3", "s8x16", "e4m3")

    def scheme(self, dtype):
        return "e4m3"


class FulguriteE4m3(Fulgurite):
    """Ourselves on tensors in e4m3: a scale for each batch entry and KV head; V's transposing is
    counted in."""
    dtypes = ("e4m3",)

    def options(self, dtype):
        return ""

    def prepare(self, cell, q, k, v):
        out = torch.full_like(q, float("nan"))
        tensors, descales = zip(*(quantised(tensor, cell["heads_kv"]) for tensor in (q, k, v)))
        return self.planned(cell, tensors, out, descales)


class FlashAttention3Fp8(EightBits, FlashAttention3):
    """FlashAttention-3 in e4m3: a scale for each batch entry and KV head; the output is bf16."""
    name = "fa3-fp8"

    def prepare(self, cell, q, k, v):
        (q, q_scale), (k, k_scale), (v, v_scale) = (
            quantised(tensor, cell["heads_kv"]) for tensor in (q, k, v))
        return self.call(cell, (q, k, v), q_descale=q_scale, k_descale=k_scale, v_descale=v_scale)


class CudnnFp8(EightBits):
    """cuDNN in e4m3, through the package nvidia-cudnn-frontend: PyTorch's attention does not offer
    it. One scale for each tensor. On Hopper the output is e4m3 too, with a scale of its own: the
    frontend refuses one of 16 bits ("only supported on Blackwell", 1.23.0 and 1.32.0)."""
    name = "cudnn-fp8"

    # What probabilities, at most 1, are multiplied with: as FlashAttention-3 does.
    PROBABILITY_SCALE = 256.0

    def __init__(self, job):
        import_from(job["peers_dir"])
        import cudnn
        self.cudnn = cudnn
        self.handle = cudnn.create_handle()
        self.out_scale = None
        self.origin = f"nvidia-cudnn-frontend {version('nvidia-cudnn-frontend')}, " \
                      f"cuDNN {cudnn.backend_version()}"

    def prepare(self, cell, q, k, v):
        if cell["causal"] and cell["q_len"] != cell["kv_len"]:
            raise NotImplementedError("its causal mask is aligned top left")
        numbers, scales = {}, {}
        for name, tensor in (("q", q), ("k", k), ("v", v)):
            # All heads of all batch entries as those of one.
            whole, scale = quantised(tensor.flatten(0, 1).unsqueeze(0), 1)
            numbers[name] = whole.view(tensor.shape)
            scales[f"descale_{name}"] = scale
        scales["scale_s"] = torch.full_like(scale, self.PROBABILITY_SCALE)
        scales["descale_s"] = 1 / scales["scale_s"]
        self.out_scale = scales["scale_o"] = torch.ones_like(scale)
        # Elements that no one writes are found by the check.
        out = torch.full_like(numbers["q"].view(torch.uint8), E4M3_NAN).view(E4M3)
        call = self.planned(cell, numbers, scales, out)
        # No one knows the scale of the output before: it is that of the same call with scale 1.
        # Half a unit of e4m3 is 2**-4 of a number.
        most = self.decoded(call()).abs().max()
        self.out_scale.copy_(E4M3_MAX / (most * (1 + 2.0**-4)))
        return call

    def planned(self, cell, numbers, scales, out):
        """A call of cuDNN on these tensors."""
        data, tensors = self.cudnn.data_type, {}
        graph = self.cudnn.pygraph(handle=self.handle, io_data_type=data.FP8_E4M3,
                                   intermediate_data_type=data.FLOAT,
                                   compute_data_type=data.FLOAT)

        def known(tensor):
            """The number by which the graph knows a tensor from now on."""
            number = len(tensors) + 1
            tensors[number] = tensor
            return number

        def given(tensor, kind):
            return graph.tensor(dim=list(tensor.shape), stride=list(tensor.stride()),
                                data_type=kind, uid=known(tensor))

        def written(node, tensor, kind):
            node.set_output(True).set_dim(list(tensor.shape)).set_stride(list(tensor.stride()))
            node.set_data_type(kind).set_uid(known(tensor))

        inputs = {name: given(tensor.transpose(1, 2), data.FP8_E4M3)
                  for name, tensor in numbers.items()}
        inputs |= {name: given(tensor.view(1, 1, 1, 1), data.FLOAT)
                   for name, tensor in scales.items()}
        out_node, _, *most_nodes = graph.sdpa_fp8(
            **inputs, attn_scale=cell["head_dim"] ** -0.5, use_causal_mask=cell["causal"],
            generate_stats=False, name="attention")
        written(out_node, out.transpose(1, 2), data.FP8_E4M3)
        for node in most_nodes:
            written(node, torch.zeros(1, 1, 1, 1, device=out.device), data.FLOAT)
        graph.build([self.cudnn.heur_mode.A, self.cudnn.heur_mode.FALLBACK])
        return self.executed(graph, tensors, out)

    def executed(self, graph, tensors, out):
        """A call of a graph."""
        workspace = torch.empty(max(graph.get_workspace_size(), 1), dtype=torch.uint8,
                                device=out.device)
        self.cudnn.set_stream(self.handle, torch.cuda.current_stream().cuda_stream)

        def call():
            graph.execute(tensors, workspace, self.handle)
            return out

        return call

    def decoded(self, result):
        return result.float() / self.out_scale


ALL = (FulguriteE4m3, FlashAttention3Fp8, CudnnFp8)
