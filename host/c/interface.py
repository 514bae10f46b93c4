"""The structs and functions of fulgurite.h for ctypes: the one mirror of the header in Python.

As a program, `interface.py LIBRARY`, it loads the library and compares the two.
"""
import ctypes
import sys

# The version of the header that this mirrors.
VERSION = "0.1.0"

OK = 0
ERROR_ARGUMENT = 1

# The header's numbers.
DTYPES = {"bf16": 1, "f16": 2, "f32": 3, "e4m3": 4, "e5m2": 5, "u8": 6, "i8": 7, "i32": 8, "i64": 9}
FORMS = {"batched": 1, "packed": 2, "paged": 3}
MASKS = {"full": 1, "causal": 2, "window": 3}
WINDOW_ENDS = {"left": 1, "right": 2}
PRECISIONS = {"given": 1, "s8e4m3": 2, "s8x16": 3, "bits8": 4}
DESCALES = {"one": 1, "per_tensor": 2, "per_head": 3, "per_row": 4}
ARCHS = {"sm90": 1, "sm80": 2}
CLASSES = {1: "Argument", 2: "Request", 3: "Buffer", 4: "Device", 5: "Driver", 6: "Internal",
           7: "Unsupported"}

Address = ctypes.c_void_p


class Layout(ctypes.Structure):
    """`fulgurite_layout`."""
    _fields_ = [("dtype", ctypes.c_uint32), ("form", ctypes.c_uint32),
                ("sequences", ctypes.c_uint64), ("shape", ctypes.c_uint64 * 4),
                ("strides", ctypes.c_uint64 * 4)]

    @classmethod
    def batched(cls, dtype, shape, strides):
        """Of a tensor by sizes and strides in the order (batch, heads, rows, head_dim)."""
        four = ctypes.c_uint64 * 4
        return cls(DTYPES[dtype], FORMS["batched"], 0, four(*shape), four(*strides))


class Descale(ctypes.Structure):
    """`fulgurite_descale`."""
    _fields_ = [("kind", ctypes.c_uint32), ("reserved", ctypes.c_uint32),
                ("strides", ctypes.c_uint64 * 2)]


class Struct(ctypes.Structure):
    """A struct that begins with its size and grows: all else is zero, which is absent."""

    def __init__(self, **fields):
        super().__init__(size_bytes=ctypes.sizeof(self), **fields)


class ForwardRequest(Struct):
    """`fulgurite_forward_request`."""
    _fields_ = [("size_bytes", ctypes.c_uint64), ("device", ctypes.c_uint32),
                ("mask", ctypes.c_uint32), ("with_lse", ctypes.c_uint32),
                ("scale", ctypes.c_float), ("q", Layout), ("k", Layout), ("v", Layout),
                ("out", Layout), ("precision", ctypes.c_uint32), ("window_ends", ctypes.c_uint32),
                ("descale_q", Descale), ("descale_k", Descale), ("descale_v", Descale),
                ("window_left", ctypes.c_int32), ("window_right", ctypes.c_int32)]


class ForwardArgs(Struct):
    """`fulgurite_forward_args`."""
    _fields_ = [("size_bytes", ctypes.c_uint64), ("q", Address), ("k", Address), ("v", Address),
                ("out", Address), ("lse", Address), ("workspace", Address),
                ("workspace_bytes", ctypes.c_uint64),
                ("descale_q", Address), ("descale_k", Address), ("descale_v", Address)]


class BackwardRequest(Struct):
    """`fulgurite_backward_request`."""
    _fields_ = [("size_bytes", ctypes.c_uint64), ("forward", ctypes.POINTER(ForwardRequest)),
                ("d_out", Layout), ("dq", Layout), ("dk", Layout), ("dv", Layout),
                ("with_d_lse", ctypes.c_uint32), ("reserved", ctypes.c_uint32)]


class BackwardArgs(Struct):
    """`fulgurite_backward_args`."""
    _fields_ = [("size_bytes", ctypes.c_uint64), ("q", Address), ("k", Address), ("v", Address),
                ("out", Address), ("lse", Address), ("d_out", Address),
                ("dq", Address), ("dk", Address), ("dv", Address), ("d_lse", Address),
                ("workspace", Address), ("workspace_bytes", ctypes.c_uint64)]


class PlanOptions(Struct):
    """`fulgurite_plan_options`."""
    _fields_ = [("size_bytes", ctypes.c_uint64), ("entry", ctypes.c_char_p),
                ("workspace_limit_bytes", ctypes.c_uint64), ("sm_limit", ctypes.c_uint32),
                ("arch", ctypes.c_uint32)]


class Error(RuntimeError):
    """What the library had to say; `status` is the header's number."""

    def __init__(self, status, text):
        super().__init__(f"{CLASSES.get(status, status)}: {text}")
        self.status = status


# Types of the functions' arguments; those without a type of their own return a status.
FUNCTIONS = {
    "fulgurite_device_supported": [ctypes.c_uint32],
    "fulgurite_plan_forward": [ctypes.POINTER(ForwardRequest), ctypes.POINTER(PlanOptions),
                               ctypes.POINTER(Address)],
    "fulgurite_launch_forward": [Address, Address, ctypes.POINTER(ForwardArgs)],
    "fulgurite_forward": [ctypes.POINTER(ForwardRequest), Address, ctypes.POINTER(ForwardArgs)],
    "fulgurite_preload_forward": [ctypes.POINTER(ForwardRequest)],
    "fulgurite_plan_backward": [ctypes.POINTER(BackwardRequest), ctypes.POINTER(PlanOptions),
                                ctypes.POINTER(Address)],
    "fulgurite_launch_backward": [Address, Address, ctypes.POINTER(BackwardArgs)],
    "fulgurite_backward": [ctypes.POINTER(BackwardRequest), Address, ctypes.POINTER(BackwardArgs)],
    "fulgurite_preload_backward": [ctypes.POINTER(BackwardRequest)],
    "fulgurite_plan_workspace_bytes": [Address, ctypes.POINTER(ctypes.c_uint64)],
    "fulgurite_plan_describe": [Address, ctypes.POINTER(ctypes.c_char_p)],
    "fulgurite_plan_entry": [Address, ctypes.POINTER(ctypes.c_char_p)],
    "fulgurite_plan_is_noop": [Address, ctypes.POINTER(ctypes.c_int32)],
    "fulgurite_plan_destroy": [Address],
    "fulgurite_workspace_reset": [ctypes.c_uint32, Address, Address, ctypes.c_uint64],
}


class Library:
    """The shared library. Whatever it refuses is an `Error`."""

    def __init__(self, path):
        self.functions = ctypes.CDLL(path)
        for name in ("fulgurite_version", "fulgurite_last_error"):
            function = getattr(self.functions, name)
            function.argtypes, function.restype = [], ctypes.c_char_p
        for name, types in FUNCTIONS.items():
            function = getattr(self.functions, name)
            function.argtypes, function.restype = types, ctypes.c_int32
        self.version = self.functions.fulgurite_version().decode()
        if self.version != VERSION:
            raise RuntimeError(f"{path} has version {self.version}, its caller knows {VERSION}")
        self.check_sizes()

    def check(self, status):
        """Raises what the last call had to say, if `status`, which it returned, is not OK."""
        if status != OK:
            raise Error(status, self.functions.fulgurite_last_error().decode())

    def check_sizes(self):
        """Structs that say nothing are refused for that, and not for their sizes."""
        plan, empty = Address(), ForwardRequest()
        gradients = BackwardRequest(forward=ctypes.pointer(empty))
        calls = (lambda: self.functions.fulgurite_plan_forward(empty, PlanOptions(), plan),
                 lambda: self.functions.fulgurite_forward(empty, None, ForwardArgs()),
                 lambda: self.functions.fulgurite_backward(gradients, None, BackwardArgs()))
        for call in calls:
            try:
                self.check(call())
            except Error as error:
                if error.status == ERROR_ARGUMENT and "request.mask is 0" in str(error):
                    continue
                raise
            raise RuntimeError("the library takes a request that says nothing")

    def plan_forward(self, request, options=None):
        """A plan of a `ForwardRequest`; whoever has it calls its `destroy`."""
        plan = Address()
        self.check(self.functions.fulgurite_plan_forward(request, options, plan))
        return Plan(self, plan, self.functions.fulgurite_launch_forward)

    def plan_backward(self, request, options=None):
        """A plan of a `BackwardRequest`, likewise."""
        plan = Address()
        self.check(self.functions.fulgurite_plan_backward(request, options, plan))
        return Plan(self, plan, self.functions.fulgurite_launch_backward)


class Plan:
    """A plan of a call, and the function that launches it."""

    def __init__(self, library, handle, launch):
        self.library, self.handle, self.launch = library, handle, launch

    def ask(self, function, answer):
        """What a function says of the plan, which it writes to `answer`."""
        self.library.check(getattr(self.library.functions, function)(self.handle, answer))
        return answer.value

    def describe(self):
        """All that was decided, in some lines."""
        return self.ask("fulgurite_plan_describe", ctypes.c_char_p()).decode()

    def entry(self):
        """The name of the kernel."""
        return self.ask("fulgurite_plan_entry", ctypes.c_char_p()).decode()

    def workspace_bytes(self):
        """Bytes of workspace that a launch needs."""
        return self.ask("fulgurite_plan_workspace_bytes", ctypes.c_uint64())

    def launcher(self, stream, args):
        """A call without arguments that launches with these, and costs as little as it can."""
        launch, check = self.launch, self.library.check
        handle, stream, args_at = self.handle, Address(stream), ctypes.byref(args)

        def call():
            status = launch(handle, stream, args_at)
            if status != OK:
                check(status)

        return call

    def destroy(self):
        """Frees it, if that has not been done."""
        handle, self.handle = self.handle, Address()
        self.library.check(self.library.functions.fulgurite_plan_destroy(handle))


def compare(library):
    """Whether the library finds each field of a request where it is here: errors name it."""
    def request():
        rows = Layout.batched("bf16", (1, 1, 1, 64), (64, 64, 64, 1))
        return ForwardRequest(device=0xFFFFFFFF, mask=MASKS["full"], q=rows, k=rows, v=rows,
                              out=rows)

    def refused(change, status, text, options=None):
        changed = request()
        change(changed)
        try:
            library.plan_forward(changed, options).destroy()
        except Error as error:
            if error.status != status or text not in str(error):
                raise
        else:
            raise RuntimeError(f"the library finds nothing wrong where it must say `{text}`")

    for name in ("mask", "with_lse"):
        refused(lambda it, name=name: setattr(it, name, 77), 1, f"request.{name} is 77")
    refused(lambda it: setattr(it, "scale", -2.5), 2, "scale -2.5")
    for name in ("q", "k", "v", "out"):
        for field in ("dtype", "form", "sequences"):
            text = f"request.{name}.{field} is 77"
            refused(lambda it, name=name, field=field: setattr(getattr(it, name), field, 77), 1,
                    text)
        text = f"head_dim stride of {name} is 3"
        refused(lambda it, name=name: getattr(it, name).strides.__setitem__(3, 3), 2, text)
    refused(lambda it: it.k.shape.__setitem__(0, 5), 2, "k has batch 5")
    compare_gradients(library, request())
    refused(lambda it: None, 4, "no ")
    for options, text in ((PlanOptions(entry=b"none"), 'options.entry is "none"'),
                          (PlanOptions(arch=77), "options.arch is 77")):
        refused(lambda it: None, 1, text, options)


def compare_gradients(library, forward):
    """The same of a request of gradients of a forward call."""
    forward.with_lse = 1

    def refused(change, status, text):
        changed = BackwardRequest(forward=ctypes.pointer(forward), d_out=forward.out,
                                  dq=forward.q, dk=forward.k, dv=forward.v)
        change(changed)
        try:
            library.plan_backward(changed).destroy()
        except Error as error:
            if error.status != status or text not in str(error):
                raise
        else:
            raise RuntimeError(f"the library finds nothing wrong where it must say `{text}`")

    for name in ("d_out", "dq", "dk", "dv"):
        refused(lambda it, name=name: setattr(getattr(it, name), "dtype", 77), 1,
                f"request.{name}.dtype is 77")
    for name in ("with_d_lse", "reserved"):
        refused(lambda it, name=name: setattr(it, name, 77), 1, f"request.{name} is 77")
    refused(lambda it: setattr(it, "forward", None), 1, "`request.forward` is null")
    refused(lambda it: None, 4, "no ")


if __name__ == "__main__":
    loaded = Library(sys.argv[1])
    compare(loaded)
    print(f"{sys.argv[1]}: version {loaded.version}, as here")
