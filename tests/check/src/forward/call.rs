//! Calls of attention: the only place that makes requests of the host crate and launches them.

use std::sync::Arc;

use fulgurite::cudarc::driver::{CudaStream, CudaViewMut};
use fulgurite::emulator::{Emulator, Global};
use fulgurite::internals::{Tile, Variant};
use fulgurite::{
    DeviceFacts, Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask, Plan, PlanOptions,
    Precision, Prepared, Read, Workspace, Write,
};
use half::{bf16, f16};
use reference::forward::eight_bits::{EightBits, Quantised, Shape};
use reference::forward::lowprec::{self, Arithmetic};
use reference::forward::oracle::Problem;
use reference::tensor::Tensor;

use crate::call::{self, Call, Decided, Launch};
use crate::gpu::{Bits, Gpu, OnGpu};
use crate::memory::{Arrangement, Memory};
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
    /// The kernel, if it is not the plan's choice.
    pub variant: Option<Variant>,
}

impl ForwardCall {
    /// A call with the default scale and without log-sum-exp, by the plan's choice.
    pub fn plain(q: Layout, kv: Layout, mask: Mask) -> ForwardCall {
        let (k, v, out) = (kv, kv, q);
        let precision = Precision::Given;
        ForwardCall { q, k, v, out, mask, scale: None, lse: false, precision, variant: None }
    }

    /// The request of the host crate.
    pub fn request(&self) -> Forward {
        let &ForwardCall { q, k, v, out, mask, scale, lse, precision, .. } = self;
        let mut forward = Forward::new(q, k, v, out, mask).precision(precision);
        forward.scale = scale;
        forward.lse = lse;
        forward
    }

    /// How it is carried out: by its kernel, if it has one of its own.
    fn options(&self) -> PlanOptions {
        self.variant.map_or_else(PlanOptions::default, |row| PlanOptions::entry(row.entry))
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
            if mask.keys(end - 1).is_empty() && variant.stores_keyless() {
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
        let prepared = match &self.variant {
            Some(_) => attention.plan_with(&self.request(), &self.options()),
            None => attention.plan(&self.request()),
        };
        prepared.map_err(|error| error.to_string())
    }

    /// The call on q, k and v laid out in memory; this one's own layouts say nothing of it.
    pub fn on(self, arrangement: Arrangement, [q, k, v]: [&Tensor; 3]) -> Launch {
        let mut memory = Memory::default();
        memory.add_read(arrangement, &[("q", q), ("k", k), ("v", v)]);
        memory.add_written(arrangement, "out", q.layout.dtype, q.layout.shape);
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
        let variant = self.variant.filter(|_| self.precision == Precision::S8E4m3)?;
        let [head_dim, kv_rows] = [variant.head_dim, variant.kv_rows].map(|size| size as usize);
        Some(Quantised::of(problem, Shape { head_dim, kv_rows }))
    }

    /// Computes by the model, and leaves the answer where a kernel would.
    pub fn model_as(&self, memory: &mut Memory, arithmetic: Arithmetic) {
        let [q, k, v] = inputs(memory);
        let problem = self.problem([&q, &k, &v]);
        let answer = match self.quantised(&problem) {
            Some(quantised) => {
                EightBits::of(&problem, quantised).model(&problem.rows(), arithmetic)
            }
            None => lowprec::attention(&problem, &problem.rows(), arithmetic),
        };
        memory.store("out", answer.out);
        memory.store_numbers("lse", &answer.lse);
    }

    fn launch_typed<T: Bits>(&self, gpu: &Gpu, memory: &OnGpu<'_>) -> Result<(), String> {
        let prepared = self.prepare(gpu.attention())?;
        let mut workspace = workspace::on_gpu(gpu, prepared.plan().workspace_bytes())?;
        let [q, k, v] = ["q", "k", "v"].map(|name| memory.read(name));
        let [q, k, v] = [&q, &k, &v].map(|tensor| tensor.view::<T>());
        memory.write("out").with_view::<T, _>(|out| {
            memory.with_numbers("lse", |lse| {
                let (stream, workspace) = (gpu.stream(), Some(&mut workspace));
                launch_in(&prepared, stream, [&q, &k, &v], out, lse, workspace)
            })
        })
    }
}

/// What a good kernel of this precision does.
pub fn arithmetic_of(precision: Precision) -> Arithmetic {
    match precision {
        Precision::S8E4m3 => Arithmetic::EIGHT_BITS,
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
    tensors: [impl Into<Read<'a>>; 3],
    out: impl Into<Write<'a>>,
    lse: Option<&'a mut CudaViewMut<'_, f32>>,
) -> Result<(), String> {
    launch_in(prepared, stream, tensors, out, lse, None)
}

/// Enqueues a prepared call.
///
/// # Errors
/// A message: what the host crate refuses, or the driver.
pub fn launch_in<'a>(
    prepared: &Prepared<Forward>,
    stream: &Arc<CudaStream>,
    [q, k, v]: [impl Into<Read<'a>>; 3],
    out: impl Into<Write<'a>>,
    lse: Option<&'a mut CudaViewMut<'_, f32>>,
    workspace: Option<&'a mut Workspace>,
) -> Result<(), String> {
    let mut args = ForwardArgs::new(q, k, v, out);
    if let Some(lse) = lse {
        args = args.lse(lse);
    }
    if let Some(workspace) = workspace {
        args = args.workspace(workspace);
    }
    prepared.launch(stream, args).map_err(|error| error.to_string())
}

/// The element type and the precision of a request that a kernel is for.
pub fn asked_of(variant: &Variant) -> (Dtype, Precision) {
    match variant.is_quantised() {
        true => (Dtype::Bf16, Precision::S8E4m3),
        false => (variant.dtype, Precision::Given),
    }
}

/// Has the driver compile and load a kernel.
///
/// # Errors
/// What the host crate refuses, or the driver.
pub fn load(attention: &FlashAttention, variant: &Variant) -> Result<(), fulgurite::Error> {
    let (dtype, precision) = asked_of(variant);
    let layout = Layout::bshd(dtype, 1, 64, 1, variant.head_dim as usize);
    let request = Forward::new(layout, layout, layout, layout, variant.mask).precision(precision);
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
        let args = match address("lse") {
            Some(lse) => args.lse(lse),
            None => args,
        };
        let args = args.workspace(workspace.map(plan.workspace_bytes(), global));
        let ran = emulator.launch_raw(&plan, args, global)?;
        Ok((self.decided(&plan), ran))
    }

    fn launch(&self, gpu: &Gpu, memory: &OnGpu<'_>) -> Result<(), String> {
        match self.q.dtype {
            Dtype::Bf16 => self.launch_typed::<bf16>(gpu, memory),
            Dtype::F16 => self.launch_typed::<f16>(gpu, memory),
            other => Err(format!("no memory for elements of {}", other.name())),
        }
    }

    fn model(&self, memory: &mut Memory) {
        let arithmetic = arithmetic_of(self.precision);
        let kv_rows = self.variant.map_or(arithmetic.kv_rows, |row| row.kv_rows as usize);
        self.model_as(memory, Arithmetic { kv_rows, ..arithmetic });
    }

    fn products(&self) -> usize {
        let [batch, heads, rows, head_dim] = self.q.shape;
        let kv_len = self.k.shape[2];
        batch * heads * rows.next_multiple_of(128) * kv_len.next_multiple_of(64) * head_dim
    }
}
