//! Calls of the backward: the only place that makes its requests of the host crate and launches
//! them.

use std::sync::Arc;

use fulgurite::emulator::{Emulator, Global};
use fulgurite::internals::{BACKWARD, Part};
use fulgurite::{
    Backward, BackwardArgs, DeviceFacts, Dtype, Forward, Mask, Plan, PlanOptions, Raw,
};
use half::{bf16, f16};
use reference::backward::lowprec::{self, Stored};
use reference::forward::oracle::Problem;
use reference::tensor::Tensor;

use crate::call::{self, Call, Decided, Launch};
use crate::gpu::{Bits, Gpu, OnGpu};
use crate::memory::{Arrangement, GUARD_ELEMENTS, Memory};
use crate::rules::Gradient;
use crate::workspace;

/// The tensors of 16 bits that a call reads.
pub const READ: [&str; 5] = ["q", "k", "v", "out", "d_out"];

/// What a call reads.
#[derive(Clone, Debug)]
pub struct Given {
    /// Queries.
    pub q: Tensor,
    /// Keys.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
    /// The output, as a forward stored it.
    pub out: Tensor,
    /// The output's gradient.
    pub d_out: Tensor,
    /// The log-sum-exp of each row.
    pub lse: Vec<f32>,
    /// Its gradient, if there is one.
    pub d_lse: Option<Vec<f32>>,
}

impl Given {
    /// What lies in a launch's memory.
    pub fn of(memory: &Memory) -> Given {
        let [q, k, v, out, d_out] = READ.map(|name| memory.tensor(name));
        let lse = memory.numbers("lse").unwrap_or_default().to_vec();
        let d_lse = memory.numbers("d_lse").map(<[f32]>::to_vec);
        Given { q, k, v, out, d_out, lse, d_lse }
    }
}

/// One call of the backward.
#[derive(Clone, Debug)]
pub struct BackwardCall {
    request: Backward,
}

impl BackwardCall {
    /// The call on tensors laid out in memory.
    pub fn on(arrangement: Arrangement, given: &Given, mask: Mask, scale: Option<f32>) -> Launch {
        let Given { q, k, v, out, d_out, lse, d_lse } = given;
        let mut memory = Memory::default();
        memory.add_read(arrangement, &[("q", q), ("k", k), ("v", v)]);
        // Only keys and values may be the same for all batch entries.
        let own = match arrangement {
            Arrangement::Shared => Arrangement::Bshd,
            other => other,
        };
        memory.add_read(own, &[("out", out), ("d_out", d_out)]);
        memory.add_given_numbers("lse", lse);
        if let Some(d_lse) = d_lse {
            memory.add_given_numbers("d_lse", d_lse);
        }
        for (name, like) in [("dq", q), ("dk", k), ("dv", v)] {
            memory.add_written(own, name, like.layout.dtype, like.layout.shape);
        }
        let [q, k, v, out, d_out] = READ.map(|name| memory.place(name).layout);
        let [dq, dk, dv] = Gradient::ALL.map(|it| memory.place(it.name()).layout);
        let mut forward = Forward::new(q, k, v, out, mask).with_lse();
        forward.scale = scale;
        let mut request = Backward::new(&forward, d_out, dq, dk, dv);
        request.d_lse = d_lse.is_some();
        Launch { call: Arc::new(BackwardCall { request }), memory }
    }

    /// The scale as a number.
    pub fn scale(&self) -> f64 {
        let Forward { q, scale, .. } = &self.request.forward;
        scale.map_or_else(|| 1.0 / (q.head_dim() as f64).sqrt(), f64::from)
    }

    /// The reference's view of the forward call on these tensors.
    pub fn problem<'a>(&self, Given { q, k, v, .. }: &'a Given) -> Problem<'a> {
        let (mask, scale) = (self.request.forward.mask, self.scale());
        Problem { q: q.view(), k: k.view(), v: v.view(), mask, scale }
    }

    /// What a plan decides: the kernel of keys and values if there is one, and the products of
    /// tiles that a call without a mask has.
    fn decided(&self, plan: &Plan<Backward>) -> Decided {
        let row = |entry: &str| BACKWARD.iter().find(|row| row.entry == entry);
        let rows = || plan.launches().iter().filter_map(|launch| row(launch.entry()));
        let keys = rows().find(|row| row.part == Part::DkDv);
        let Some(row) = keys.or_else(|| rows().next()) else {
            return Decided { entry: None, tiles: 0 };
        };
        let Forward { q, k, .. } = &self.request.forward;
        let tiles = q.rows().div_ceil(64) * k.rows().div_ceil(64);
        Decided { entry: Some(row.entry), tiles: (q.batch() * q.heads() * tiles) as u64 }
    }

    fn launch_typed<T: Bits>(&self, gpu: &Gpu, memory: &OnGpu<'_>) -> Result<(), String> {
        let prepared = gpu.attention().plan(&self.request).map_err(|error| error.to_string())?;
        let mut workspace = workspace::on_gpu(gpu, prepared.plan().workspace_bytes())?;
        let read = READ.map(|name| memory.read(name));
        let [q, k, v, out, d_out] = read.each_ref().map(|tensor| tensor.view::<T>());
        let lse = memory.read_numbers("lse").ok_or("no log-sum-exp was laid out")?;
        let lse = lse.slice(GUARD_ELEMENTS..);
        let d_lse = memory.read_numbers("d_lse");
        let d_lse = d_lse.as_ref().map(|all| all.slice(GUARD_ELEMENTS..));
        let [mut to_q, mut to_k, mut to_v] = Gradient::ALL.map(|it| memory.write(it.name()));
        to_q.with_view::<T, _>(|dq| {
            to_k.with_view::<T, _>(|dk| {
                to_v.with_view::<T, _>(|dv| {
                    let args = BackwardArgs::new(&q, &k, &v, &out, &lse, &d_out, dq, dk, dv);
                    let args = args.workspace(&mut workspace);
                    let args = match &d_lse {
                        Some(d_lse) => args.d_lse(d_lse),
                        None => args,
                    };
                    prepared.launch(gpu.stream(), args).map_err(|error| error.to_string())
                })
            })
        })
    }
}

impl Call for BackwardCall {
    fn plan(&self, facts: &DeviceFacts) -> Result<Decided, fulgurite::Error> {
        Ok(self.decided(&Plan::new(&self.request, facts)?))
    }

    fn emulate<'a>(
        &self,
        facts: &DeviceFacts,
        emulator: &Emulator,
        address: &dyn Fn(&str) -> Option<u64>,
        global: &mut Global<'a>,
        workspace: &'a mut workspace::Emulated,
    ) -> call::Emulated {
        let plan = Plan::with(&self.request, facts, &PlanOptions::default())?;
        let at = |name: &str| address(name).unwrap_or_default();
        let [q, k, v, out, d_out] = READ.map(at);
        let [dq, dk, dv] = Gradient::ALL.map(|gradient| at(gradient.name()));
        let args = BackwardArgs::<Raw>::new(q, k, v, out, at("lse"), d_out, dq, dk, dv);
        let args = args.workspace(workspace.map(plan.workspace_bytes(), global));
        let args = match address("d_lse") {
            Some(d_lse) => args.d_lse(d_lse),
            None => args,
        };
        let ran = emulator.launch_raw(&plan, args, global)?;
        Ok((self.decided(&plan), ran))
    }

    fn launch(&self, gpu: &Gpu, memory: &OnGpu<'_>) -> Result<(), String> {
        match self.request.forward.q.dtype {
            Dtype::Bf16 => self.launch_typed::<bf16>(gpu, memory),
            Dtype::F16 => self.launch_typed::<f16>(gpu, memory),
            other => Err(format!("no memory for elements of {}", other.name())),
        }
    }

    fn model(&self, memory: &mut Memory) {
        let given = Given::of(memory);
        let d_lse = given.d_lse.as_deref();
        let stored = Stored { out: given.out.view(), lse: &given.lse, d_lse };
        let gradients = lowprec::gradients(&self.problem(&given), stored, given.d_out.view());
        memory.store("dq", gradients.q);
        memory.store("dk", gradients.k);
        memory.store("dv", gradients.v);
    }

    fn products(&self) -> usize {
        // Seven products where the forward has two.
        let [batch, heads, rows, head_dim] = self.request.forward.q.shape;
        let kv_len = self.request.forward.k.rows();
        4 * batch * heads * rows.next_multiple_of(64) * kv_len.next_multiple_of(64) * head_dim
    }
}
