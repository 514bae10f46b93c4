//! Calls of attention: the only place that makes requests of the host crate and launches them.

use std::sync::Arc;

use fulgurite::cudarc::driver::{CudaStream, CudaViewMut};
use fulgurite::emulator::{Emulator, Global};
use fulgurite::internals::{Tile, Variant};
use fulgurite::{
    Arch, Descale, DeviceFacts, Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask, Plan,
    PlanOptions, Precision, Prepared, Raw, Read, Write,
};
use half::{bf16, f16};
use reference::forward::eight_bits::{EightBits, Quantised, Shape};
use reference::forward::given8::Given8;
use reference::forward::lowprec::{self, Arithmetic};
use reference::forward::oracle::Problem;
use reference::tensor::Tensor;

use crate::call::{self, Call, Decided, Launch};
use crate::gpu::{Bits, Gpu, OnGpu};
use crate::memory::{Arrangement, GUARD_ELEMENTS, Memory};
use crate::workspace;

/// One call of attention.
#[derive(Clone, Copy, Debug)]
pub struct ForwardCall {
    /// Layout of the queries.
    pub q: Layout,
    /// Layout of the keys.
    pub k: Layout,
    /// Layout of the values.
    pub v: Layout,
    /// Layout of the output.
    pub out: Layout,
    /// Which keys a row sees.
    pub mask: Mask,
    /// Softmax scale; `None`: the default.
    pub scale: Option<f32>,
    /// Whether the log-sum-exp is wanted.
    pub lse: bool,
    /// How exactly it is computed.
    pub precision: Precision,
    /// What stored numbers are multiplied with, if they have 8 bits.
    pub descale: [Descale; 3],
    /// The kernel, if it is not the plan's choice.
    pub variant: Option<Variant>,
    /// The architecture of the kernel, if that is not.
    pub arch: Option<Arch>,
}

impl ForwardCall {
    /// A call with the default scale and without log-sum-exp, by the plan's choice.
    pub fn plain(q: Layout, kv: Layout, mask: Mask) -> ForwardCall {
        let (k, v, out) = (kv, kv, q);
        let (precision, descale) = (Precision::Given, [Descale::One; 3]);
        let (scale, lse, variant, arch) = (None, false, None, None);
        ForwardCall { q, k, v, out, mask, scale, lse, precision, descale, variant, arch }
    }

    /// The request of the host crate.
    pub fn request(&self) -> Forward {
        let &ForwardCall { q, k, v, out, mask, scale, lse, precision, .. } = self;
        let mut forward = Forward::new(q, k, v, out, mask).precision(precision);
        forward.scale = scale;
        forward.lse = lse;
        if q.dtype == Dtype::E4m3 {
            forward.descale = Some(self.descale);
        }
        forward
    }

    /// How it is carried out: by its kernel or architecture, if it has one of its own.
    fn options(&self) -> PlanOptions {
        match (self.variant, self.arch) {
            (Some(row), _) => PlanOptions::entry(row.entry),
            (None, Some(arch)) => PlanOptions::default().arch(arch),
            (None, None) => PlanOptions::default(),
        }
    }

    fn decided(&self, plan: &Plan<Forward>) -> Decided {
        let Some(variant) = plan.variant() else {
            return Decided { entry: None, tiles: 0 };
        };
        Decided { entry: Some(variant.entry), tiles: self.tiles(variant) }
    }

    /// Query tiles × KV tiles that a kernel computes of the call.
    fn tiles(&self, variant: &Variant) -> u64 {
        let tile = Tile::of(variant);
        let ([batch, heads, rows, _], kv_len) = (self.q.shape, self.k.shape[2]);
        let q_rows = tile.q_rows() as usize;
        let mask = self.mask.geometry(rows as u32, kv_len as u32);
        let visited = |first_row: usize| {
            let end = (first_row + q_rows).min(rows) as u32;
            if mask.keys(end - 1).end == 0 && variant.stores_keyless() {
                return 0;
            }
            let segments = mask.segments(first_row as u32..end, tile.kv_rows);
            (segments.end - segments.begin) as usize
        };
        let of_head: usize = (0..rows).step_by(q_rows).map(visited).sum();
        (batch * heads * of_head) as u64
    }

    /// Plans it for a GPU and loads its kernel.
    ///
    /// # Errors
    /// A message: what the host crate refuses.
    pub fn prepare(&self, attention: &FlashAttention) -> Result<Prepared<Forward>, String> {
        let prepared = match self.options() {
            options if options == PlanOptions::default() => attention.plan(&self.request()),
            options => attention.plan_with(&self.request(), &options),
        };
        prepared.map_err(|error| error.to_string())
    }

    /// The call on q, k and v laid out in memory; this one's own layouts say nothing of it but the
    /// output's type.
    pub fn on(self, arrangement: Arrangement, [q, k, v]: [&Tensor; 3]) -> Launch {
        let mut memory = Memory::default();
        memory.add_read(arrangement, &[("q", q), ("k", k), ("v", v)]);
        memory.add_written(arrangement, "out", self.out.dtype, q.layout.shape);
        if self.lse {
            let [batch, heads, rows, _] = q.layout.shape;
            memory.add_numbers("lse", batch * heads * rows);
        }
        let [q, k, v, out] = ["q", "k", "v", "out"].map(|name| memory.place(name).layout);
        Launch { call: Arc::new(ForwardCall { q, k, v, out, ..self }), memory }
    }

    /// The scale as a number.
    pub fn scale(&self) -> f64 {
        match self.scale {
            Some(scale) => f64::from(scale),
            None => 1.0 / (self.q.shape[3] as f64).sqrt(),
        }
    }

    /// The reference's view of the call on these tensors.
    pub fn problem<'a>(&self, [q, k, v]: [&'a Tensor; 3]) -> Problem<'a> {
        Problem { q: q.view(), k: k.view(), v: v.view(), mask: self.mask, scale: self.scale() }
    }

    /// What 8-bit kernels have of the tensors; none of a call in the tensors' own types, or whose
    /// kernel is not known.
    pub fn quantised(&self, problem: &Problem) -> Option<Quantised> {
        let variant = self.variant.filter(|_| self.precision != Precision::Given)?;
        let [head_dim, kv_rows] = [variant.head_dim, variant.kv_rows].map(|size| size as usize);
        Some(Quantised::of(problem, Shape { head_dim, kv_rows, values: variant.dtype }))
    }

    /// A call on tensors of 8 bits, with what their numbers are multiplied with.
    pub fn given8(&self, problem: &Problem, memory: &Memory) -> Option<Given8> {
        let numbers = DESCALES.map(|name| memory.numbers(name).unwrap_or_default());
        let is_given = problem.q.layout.dtype == Dtype::E4m3;
        is_given.then(|| Given8::of(problem, self.descale, numbers, self.out.dtype))
    }

    /// Computes by the model, and leaves the answer where a kernel would.
    pub fn model_as(&self, memory: &mut Memory, arithmetic: Arithmetic) {
        let [q, k, v] = inputs(memory);
        let problem = self.problem([&q, &k, &v]);
        let rows = problem.rows();
        let answer = match (self.quantised(&problem), self.given8(&problem, memory)) {
            (Some(quantised), _) => EightBits::of(&problem, quantised).model(&rows, arithmetic),
            (_, Some(given)) => given.model(&rows, arithmetic),
            _ => lowprec::attention(&problem, &rows, arithmetic),
        };
        memory.store("out", answer.out);
        memory.store_numbers("lse", &answer.lse);
    }

    fn launch_typed<T: Bits>(&self, gpu: &Gpu, memory: &OnGpu<'_>) -> Result<(), String> {
        let prepared = self.prepare(gpu.attention())?;
        let mut workspace = workspace::on_gpu(gpu, prepared.plan().workspace_bytes())?;
        let [q, k, v] = ["q", "k", "v"].map(|name| memory.read(name));
        let [q, k, v] = [&q, &k, &v].map(|tensor| tensor.view::<T>());
        let typed = [&q, &k, &v].map(|tensor| Read::from(tensor).typed(self.q.dtype));
        let descales = DESCALES.map(|name| memory.read_numbers(name));
        let descales = descales
            .each_ref()
            .map(|numbers| numbers.as_ref().map(|numbers| numbers.slice(GUARD_ELEMENTS..)));
        memory.write("out").with_view::<T, _>(|out| {
            memory.with_numbers("lse", |lse| {
                let [q, k, v] = typed;
                let mut args = ForwardArgs::new(q, k, v, out).workspace(&mut workspace);
                if let Some(lse) = lse {
                    args = args.lse(lse);
                }
                let [of_q, of_k, of_v] = &descales;
                if let Some(numbers) = of_q {
                    args = args.descale_q(numbers);
                }
                if let Some(numbers) = of_k {
                    args = args.descale_k(numbers);
                }
                if let Some(numbers) = of_v {
                    args = args.descale_v(numbers);
                }
                prepared.launch(gpu.stream(), args).map_err(|error| error.to_string())
            })
        })
    }
}

/// The names of what numbers of q, k and v are multiplied with.
pub const DESCALES: [&str; 3] = ["descale_q", "descale_k", "descale_v"];

/// What a good kernel of this precision does with tensors of a type.
pub fn arithmetic_of(precision: Precision, dtype: Dtype) -> Arithmetic {
    match (precision, dtype) {
        (_, Dtype::E4m3) => Arithmetic::E4M3,
        (Precision::S8E4m3, _) => Arithmetic::EIGHT_BITS,
        _ => Arithmetic::PEER,
    }
}

/// Q, K and V as they lie in memory.
pub fn inputs(memory: &Memory) -> [Tensor; 3] {
    ["q", "k", "v"].map(|name| memory.tensor(name))
}

/// Enqueues a prepared call that needs no workspace.
///
/// # Errors
/// A message: what the host crate refuses, or the driver.
pub fn launch<'a>(
    prepared: &Prepared<Forward>,
    stream: &Arc<CudaStream>,
    [q, k, v]: [impl Into<Read<'a>>; 3],
    out: impl Into<Write<'a>>,
    lse: Option<&'a mut CudaViewMut<'_, f32>>,
) -> Result<(), String> {
    let args = ForwardArgs::new(q, k, v, out);
    let args = match lse {
        Some(lse) => args.lse(lse),
        None => args,
    };
    prepared.launch(stream, args).map_err(|error| error.to_string())
}

/// The type of the tensors that a kernel is given, where results have this one.
pub fn of_inputs(variant: &Variant, dtype: Dtype) -> Dtype {
    if variant.scores == Dtype::E4m3 { Dtype::E4m3 } else { dtype }
}

/// The element type of the output, and the precision, of a request that a kernel is for.
pub fn asked_of(variant: &Variant) -> (Dtype, Precision) {
    match (variant.scores, variant.dtype) {
        (Dtype::E4m3, _) => (Dtype::Bf16, Precision::Given),
        (Dtype::I8, Dtype::E4m3) => (Dtype::Bf16, Precision::S8E4m3),
        (Dtype::I8, dtype) => (dtype, Precision::S8x16),
        (_, dtype) => (dtype, Precision::Given),
    }
}

/// Has the driver compile and load a kernel.
///
/// # Errors
/// What the host crate refuses, or the driver.
pub fn load(attention: &FlashAttention, variant: &Variant) -> Result<(), fulgurite::Error> {
    let (dtype, precision) = asked_of(variant);
    let layout = |dtype| Layout::bshd(dtype, 1, 64, 1, variant.head_dim as usize);
    let (given, out) = (layout(of_inputs(variant, dtype)), layout(dtype));
    let call =
        ForwardCall { out, precision, ..ForwardCall::plain(given, given, variant.mask.example()) };
    let request = call.request();
    attention.plan_with(&request, &PlanOptions::entry(variant.entry)).map(|_| ())
}

impl Call for ForwardCall {
    fn plan(&self, facts: &DeviceFacts) -> Result<Decided, fulgurite::Error> {
        Ok(self.decided(&Plan::with(&self.request(), facts, &self.options())?))
    }

    fn emulate<'a>(
        &self,
        facts: &DeviceFacts,
        emulator: &Emulator,
        address: &dyn Fn(&str) -> Option<u64>,
        global: &mut Global<'a>,
        workspace: &'a mut workspace::Emulated,
    ) -> call::Emulated {
        let plan = Plan::with(&self.request(), facts, &self.options())?;
        let [q, k, v, out] = ["q", "k", "v", "out"].map(|name| address(name).unwrap_or_default());
        let args = ForwardArgs::new(q, k, v, out);
        let given =
            |args: ForwardArgs<Raw>, name, set: fn(_, u64) -> ForwardArgs<Raw>| match address(name)
            {
                Some(address) => set(args, address),
                None => args,
            };
        let args = given(args, "lse", ForwardArgs::lse);
        let args = given(args, "descale_q", ForwardArgs::descale_q);
        let args = given(args, "descale_k", ForwardArgs::descale_k);
        let args = given(args, "descale_v", ForwardArgs::descale_v);
        let args = args.workspace(workspace.map(plan.workspace_bytes(), global));
        let ran = emulator.launch_raw(&plan, args, global)?;
        Ok((self.decided(&plan), ran))
    }

    fn launch(&self, gpu: &Gpu, memory: &OnGpu<'_>) -> Result<(), String> {
        match self.out.dtype {
            Dtype::Bf16 => self.launch_typed::<bf16>(gpu, memory),
            Dtype::F16 => self.launch_typed::<f16>(gpu, memory),
            other => Err(format!("no memory for elements of {}", other.name())),
        }
    }

    fn model(&self, memory: &mut Memory) {
        let arithmetic = arithmetic_of(self.precision, self.q.dtype);
        let kv_rows = self.variant.map_or(arithmetic.kv_rows, |row| row.kv_rows as usize);
        self.model_as(memory, Arithmetic { kv_rows, ..arithmetic });
    }

    fn products(&self) -> usize {
        let [batch, heads, rows, head_dim] = self.q.shape;
        let kv_len = self.k.shape[2];
        batch * heads * rows.next_multiple_of(128) * kv_len.next_multiple_of(64) * head_dim
    }
}
