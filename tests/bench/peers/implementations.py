"""Those who are measured, in 16 bits and ourselves; `eight_bits` has the others."""
import contextlib
import ctypes
import hashlib
import importlib.metadata
import lzma
import os
import shutil
import sys

import torch
import torch.nn.functional as functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import interface

# Types of the tensors in a cell of each dtype. In 8 bits they are what is quantised: by our calls,
# or before them.
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "s8e4m3": torch.bfloat16,
          "s8x16": torch.bfloat16, "e4m3": torch.bfloat16}

# The names of these types in our interface.
TYPE_NAMES = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float8_e4m3fn: "e4m3"}

# Where a peer's file is unpacked to: the folder of this program, which is a temporary one.
HERE = os.path.dirname(os.path.abspath(__file__))


def identity(path):
    """Name, size and the start of the hash of a file: which build it is."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return f"{os.path.basename(path)}, {os.path.getsize(path)} bytes, " \
           f"sha256 {digest.hexdigest()[:16]}"


def version(package):
    """The version of an installed package, None if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def no_context():
    return contextlib.nullcontext()


def layout(tensor):
    """The layout of a tensor [batch, rows, heads, head_dim]."""
    batch, rows, heads, head_dim = tensor.shape
    batch_stride, row_stride, head_stride, column_stride = tensor.stride()
    return interface.Layout.batched(TYPE_NAMES[tensor.dtype], (batch, heads, rows, head_dim),
                                    (batch_stride, head_stride, row_stride, column_stride))


class Implementation:
    """What all share. Each has a `name`, an `origin` (which version of it) and `prepare`, which
    gives the call for a cell's tensors."""
    # Dtypes of the cells it takes.
    dtypes = ("bf16", "f16")

    def context(self):
        """Inside of this its calls are made."""
        return no_context()

    def scheme(self, dtype):
        """The numbers that it computes with in a cell of this dtype."""
        return dtype

    def options(self, dtype):
        """What its times of such cells hold besides attention."""
        return ""

    def decoded(self, result):
        """What a call gave, as numbers of 16 bits or more."""
        return result


class Fulgurite(Implementation):
    """Ourselves, through the C interface."""
    name = "fulgurite"
    dtypes = ("bf16", "f16", "s8e4m3", "s8x16")

    def __init__(self, job):
        self.device = job["device"]
        self.library = interface.Library(job["library"])
        self.arch = job.get("arch")
        self.plan = self.gradient_plan = None
        # What the plan's launches read.
        self.tensors = None
        self.workspace = None
        self.origin = identity(job["library"])

    def options(self, dtype):
        # Each launch quantises the tensors of 16 bits.
        return "quantise" if dtype in interface.PRECISIONS else self.arch or ""

    def prepare(self, cell, q, k, v):
        # Elements that no one writes are found by the check.
        return self.planned(cell, (q, k, v), torch.full_like(q, float("nan")))

    def planned(self, cell, tensors, out, descales=None):
        """A call on these tensors; `descales`: what their numbers are multiplied with."""
        q, k, v = tensors
        if self.plan is not None:
            self.plan.destroy()
            self.plan = None
        mask = interface.MASKS["causal" if cell["causal"] else "full"]
        precision = interface.PRECISIONS.get(cell["dtype"], interface.PRECISIONS["given"])
        layouts = {name: layout(tensor)
                   for name, tensor in (("q", q), ("k", k), ("v", v), ("out", out))}
        said, given = {}, {}
        if descales is not None:
            two = ctypes.c_uint64 * 2
            for name, numbers in zip(("descale_q", "descale_k", "descale_v"), descales):
                said[name] = interface.Descale(interface.DESCALES["per_head"], 0,
                                               two(*numbers.stride()))
                given[name] = numbers.data_ptr()
        request = interface.ForwardRequest(device=self.device, mask=mask, precision=precision,
                                           **layouts, **said)
        self.plan = self.library.plan_forward(request, self.plan_options())
        self.tensors = (tensors, descales)
        stream = torch.cuda.current_stream().cuda_stream
        args = interface.ForwardArgs(q=q.data_ptr(), k=k.data_ptr(), v=v.data_ptr(),
                                     out=out.data_ptr(), **given,
                                     **self.room(self.plan.workspace_bytes(), stream))
        launch = self.plan.launcher(stream, args)

        def call():
            launch()
            return out

        return call

    def prepare_gradients(self, cell, q, k, v, d_out):
        """A call of the gradients alone, or of the forward and them."""
        for plan in (self.plan, self.gradient_plan):
            if plan is not None:
                plan.destroy()
        self.plan = self.gradient_plan = None
        batch, q_len, heads, _ = q.shape
        out = torch.empty_like(q)
        lse = torch.empty((batch, heads, q_len), dtype=torch.float32, device="cuda")
        results = [torch.full_like(tensor, float("nan")) for tensor in (q, k, v)]
        forward = interface.ForwardRequest(
            device=self.device, mask=interface.MASKS["causal" if cell["causal"] else "full"],
            precision=interface.PRECISIONS["given"], with_lse=1, q=layout(q), k=layout(k),
            v=layout(v), out=layout(out))
        dq, dk, dv = map(layout, results)
        request = interface.BackwardRequest(forward=ctypes.pointer(forward), d_out=layout(d_out),
                                            dq=dq, dk=dk, dv=dv)
        self.plan = self.library.plan_forward(forward, self.plan_options())
        self.gradient_plan = self.library.plan_backward(request, self.plan_options())
        self.tensors = (q, k, v, out, lse, d_out, results)
        stream = torch.cuda.current_stream().cuda_stream
        read = {"q": q, "k": k, "v": v, "out": out, "lse": lse}
        addresses = {name: tensor.data_ptr() for name, tensor in read.items()}
        run_forward = self.plan.launcher(stream, interface.ForwardArgs(
            **addresses, **self.room(self.plan.workspace_bytes(), stream)))
        written = {name: tensor.data_ptr() for name, tensor in zip(("dq", "dk", "dv"), results)}
        run_gradients = self.gradient_plan.launcher(stream, interface.BackwardArgs(
            **addresses, d_out=d_out.data_ptr(), **written,
            **self.room(self.gradient_plan.workspace_bytes(), stream)))
        run_forward()

        def call():
            if cell["kind"] != "bwd":
                run_forward()
            run_gradients()
            return results

        return call

    def plan_options(self):
        """How plans are made."""
        return interface.PlanOptions(arch=interface.ARCHS[self.arch]) if self.arch else None

    def room(self, size, stream):
        """The workspace for a plan that needs so many bytes, as fields of a launch's arguments."""
        if size == 0:
            return {}
        if self.workspace is None or self.workspace.numel() < size:
            # The old one is freed first.
            self.workspace = None
            self.workspace = torch.empty(size, dtype=torch.uint8, device="cuda")
            self.library.check(self.library.functions.fulgurite_workspace_reset(
                self.device, stream, self.workspace.data_ptr(), size))
        return {"workspace": self.workspace.data_ptr(), "workspace_bytes": self.workspace.numel()}


def unpacked(directory, name):
    """The path of a file of the peers' folder, which may be there as .xz; None if it is not."""
    path = os.path.join(directory, name)
    if os.path.exists(path):
        return path
    if not os.path.exists(path + ".xz"):
        return None
    target = os.path.join(HERE, name)
    if os.path.exists(target):
        return target
    with lzma.open(path + ".xz") as source, open(target, "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 24)
    return target


def import_from(directory):
    """Lets Python import packages that were unpacked into a folder; those installed go first."""
    if os.path.isdir(directory) and directory not in sys.path:
        sys.path.append(directory)


class FlashAttention3(Implementation):
    """FlashAttention-3's operators from a public build, loaded without its Python package. The
    builds register the same names, so that a process can hold one of them."""
    name = "fa3"

    def __init__(self, job):
        directory = job["peers_dir"]
        names = ["tokenspeed_C.so", "xformers_fa3_C.so"]
        if any(cell["kind"] != "fwd" for cell in job["cells"]):
            # The first one has no backward.
            del names[0]
        paths = (unpacked(directory, name) for name in names)
        path = next((path for path in paths if path is not None), None)
        if path is None:
            raise FileNotFoundError(f"{' or '.join(names)} in {directory}")
        runtime = unpacked(directory, "libcudart.so.12")
        if "xformers" in path and runtime is not None:
            ctypes.CDLL(runtime, mode=ctypes.RTLD_GLOBAL)
        torch.ops.load_library(path)
        self.forward = torch.ops.flash_attn_3.fwd
        self.origin = identity(path)

    def prepare(self, cell, q, k, v):
        return self.call(cell, (q, k, v))

    def call(self, cell, tensors, **more):
        """A call of the operator on q, k and v."""
        options = {"softmax_scale": tensors[0].shape[-1] ** -0.5, "is_causal": cell["causal"],
                   "window_size_left": -1, "window_size_right": -1, "num_splits": 1, **more}
        return lambda: self.forward(*tensors, **options)[0]


    def prepare_gradients(self, cell, q, k, v, d_out):
        """A call of the gradients alone, or of the forward and them."""
        options = {"softmax_scale": q.shape[-1] ** -0.5, "is_causal": cell["causal"],
                   "window_size_left": -1, "window_size_right": -1}
        backward = torch.ops.flash_attn_3.bwd
        results = [torch.empty_like(tensor) for tensor in (q, k, v)]
        forward = lambda: self.forward(q, k, v, num_splits=1, **options)[:2]  # noqa: E731
        before = forward()

        def call():
            out, lse = before if cell["kind"] == "bwd" else forward()
            backward(d_out, q, k, v, out, lse, *results, **options)
            return results

        return call


class FlashAttention4(Implementation):
    """FlashAttention-4, where its Python packages can be imported."""
    name = "fa4"

    def __init__(self, job):
        directory = job["peers_dir"]
        import_from(directory)
        import_from(os.path.join(directory, "nvidia_cutlass_dsl", "dsl_packages"))
        from flash_attn.cute import flash_attn_func
        self.forward = flash_attn_func
        packages = ("flash-attn-4", "nvidia-cutlass-dsl")
        self.origin = ", ".join(f"{name} {version(name) or 'of unknown version'}"
                                for name in packages)

    def prepare(self, cell, q, k, v):
        def call():
            result = self.forward(q, k, v, causal=cell["causal"])
            return result[0] if isinstance(result, (tuple, list)) else result

        return call


class Sdpa(Implementation):
    """PyTorch's attention with one of its backends; it wants [batch, heads, rows, head_dim]."""
    backend = None

    def __init__(self, _job):
        self.origin = f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"

    def context(self):
        return sdpa_kernel(self.backend)

    def prepare(self, cell, q, k, v):
        if cell["causal"] and cell["q_len"] != cell["kv_len"]:
            return self.bottom_right(q, k, v)
        grouped = cell["heads"] != cell["heads_kv"]
        causal = cell["causal"]
        turned = [tensor.transpose(1, 2) for tensor in (q, k, v)]
        attention = functional.scaled_dot_product_attention
        options = {"is_causal": causal, "enable_gqa": grouped}
        return lambda: attention(*turned, **options).transpose(1, 2)

    def bottom_right(self, q, k, v):
        raise NotImplementedError("its causal mask is aligned top left")


class SdpaCudnn(Sdpa):
    """cuDNN through PyTorch."""
    name = "sdpa-cudnn"
    backend = SDPBackend.CUDNN_ATTENTION


class SdpaFlashAttention2(Sdpa):
    """FlashAttention-2 through PyTorch. Its operator aligns bottom right, the function in front of
    it does not offer that."""
    name = "sdpa-fa2"
    backend = SDPBackend.FLASH_ATTENTION

    def bottom_right(self, q, k, v):
        turned = [tensor.transpose(1, 2) for tensor in (q, k, v)]
        forward = torch.ops.aten._scaled_dot_product_flash_attention
        return lambda: forward(*turned, 0.0, True)[0].transpose(1, 2)


ALL = (Fulgurite, FlashAttention3, FlashAttention4, SdpaCudnn, SdpaFlashAttention2)
