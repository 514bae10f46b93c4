//! From a backward request to the work of a launch.

use std::mem::offset_of;

use fulgurite_spec::backward::{
    BackwardRow, BackwardTile, BwdParams, BwdScalars, DELTA, DELTA_ROWS, DeltaParams, Gradient,
    Part, StatsRegion,
};
use fulgurite_spec::launch::WARPGROUP_ROWS;
use fulgurite_spec::params::Source;
use fulgurite_spec::smem::PANEL_COLUMNS;
use fulgurite_spec::{Divisor, Dtype};

use super::check::{check, select};
use super::{Backward, BackwardArgs};
use crate::args::{Access, Args};
use crate::place::Raw;
use crate::request::PlanOptions;
use crate::tensor_map::TensorMapSpec;
use crate::work::{Block, BufferNeed, Launch, Memory, Slot, Work};
use crate::workspace::{GRID_LIMIT, LIMIT_BYTES};
use crate::{DeviceFacts, Error, Forward, Layout, Workspace, module};

/// Alignment of tensors in bytes, asked for by TMA and by loads and stores of 16 bytes.
const TENSOR_ALIGNMENT_BYTES: u64 = 16;

/// Checks a request and decides how it is computed.
pub(super) fn decide(
    request: &Backward,
    device: &DeviceFacts,
    options: &PlanOptions,
) -> Result<Work, Error> {
    let forward = &check(request)?;
    let buffers = buffers(request, forward)?;
    let scale_log2 = forward.scale_log2()?;
    let [dkdv, dq] = [Part::DkDv, Part::Dq].map(|part| select(forward, part, device, options));
    let (dkdv, dq) = (dkdv?, dq?);
    let call = Call::of(request, forward, scale_log2)?;
    let mut launches = Vec::new();
    for launch in [call.delta(device)?, call.gradients(dkdv)?, call.gradients(dq)?] {
        if launch.grid > 0 {
            launches.push(launch);
        }
    }
    let workspace_bytes = if launches.is_empty() { 0 } else { call.workspace_bytes() };
    let fields = <BackwardArgs<Raw> as Args<Raw>>::FIELDS;
    Ok(Work::new(fields, buffers, launches, workspace_bytes))
}

/// The buffers of a call; none has more elements than fit, as was found when it was checked.
fn buffers(request: &Backward, forward: &Forward) -> Result<Vec<BufferNeed>, Error> {
    let Backward { d_out, dq, dk, dv, .. } = request;
    let tensor = |name, layout: &Layout, access| BufferNeed {
        name,
        dtype: layout.dtype,
        elements: layout.span_elements().unwrap_or(0),
        access,
        align_bytes: TENSOR_ALIGNMENT_BYTES,
    };
    let Forward { q, k, v, out, .. } = forward;
    let read = [("q", q), ("k", k), ("v", v), ("out", out), ("d_out", d_out)];
    let written = [("dq", dq), ("dk", dk), ("dv", dv)];
    let read = read.map(|(name, layout)| tensor(name, layout, Access::Read));
    let written = written.map(|(name, layout)| tensor(name, layout, Access::Write));
    let elements = forward.lse_elements()?;
    let of_rows = |name| BufferNeed {
        name,
        dtype: Dtype::F32,
        elements,
        access: Access::Read,
        align_bytes: size_of::<f32>() as u64,
    };
    let d_lse = request.d_lse.then(|| of_rows("d_lse"));
    Ok(read.into_iter().chain([of_rows("lse")]).chain(written).chain(d_lse).collect())
}

/// A checked call, and where the numbers of its rows lie in the workspace.
struct Call<'a> {
    request: &'a Backward,
    forward: &'a Forward,
    scale_log2: f32,
    stats: StatsRegion,
}

impl<'a> Call<'a> {
    /// Lays out the workspace.
    ///
    /// # Errors
    /// [`Error::WorkspaceTooLarge`].
    fn of(request: &'a Backward, forward: &'a Forward, scale_log2: f32) -> Result<Self, Error> {
        let Layout { shape: [batch, heads, rows, _], .. } = forward.q;
        // Batch and heads are below 2^32 each.
        let stats = StatsRegion::of(batch as u64 * heads as u64, rows as u64);
        let fits = |stats: &StatsRegion| stats.bytes <= LIMIT_BYTES - Workspace::HEAD_BYTES as u64;
        let stats = stats.filter(fits).ok_or(Error::WorkspaceTooLarge { limit: LIMIT_BYTES })?;
        Ok(Call { request, forward, scale_log2, stats })
    }

    /// Bytes of the whole workspace.
    fn workspace_bytes(&self) -> u64 {
        Workspace::HEAD_BYTES as u64 + self.stats.bytes
    }

    /// A place in the region of the rows' numbers.
    fn in_stats(&self, offset: u64) -> Memory {
        Memory::Workspace(Workspace::HEAD_BYTES as u64 + offset)
    }

    /// The first launch.
    ///
    /// # Errors
    /// [`Error::TooManyJobs`], [`Error::NotBuilt`]; those of devices that cannot run the kernel.
    fn delta(&self, device: &DeviceFacts) -> Result<Launch, Error> {
        const ADDRESS: usize = offset_of!(Source, address);
        let Forward { q, out, .. } = self.forward;
        let row = DELTA.iter().find(|row| row.dtype == q.dtype);
        let row = row.ok_or_else(|| Error::NotBuilt { entry: "bwd_delta".to_owned() })?;
        device.check(&row.kernel())?;
        // A head has fewer than 2^31 rows with padding.
        let blocks = (self.stats.q_pad / u64::from(DELTA_ROWS)) as u32;
        let params = DeltaParams {
            out: source(out),
            d_out: source(&self.request.d_out),
            lse: 0,
            d_lse: 0,
            lse2: 0,
            delta: 0,
            heads: Divisor::new(q.heads() as u32),
            blocks: Divisor::new(blocks),
            q_len: q.rows() as u32,
            q_pad: self.stats.q_pad as u32,
            head_dim: q.head_dim() as u32,
            reserved: [0; 3],
        };
        let mut slots = vec![
            Slot::Address(offset_of!(DeltaParams, out) + ADDRESS, Memory::Buffer("out")),
            Slot::Address(offset_of!(DeltaParams, d_out) + ADDRESS, Memory::Buffer("d_out")),
            Slot::Address(offset_of!(DeltaParams, lse), Memory::Buffer("lse")),
            Slot::Address(offset_of!(DeltaParams, lse2), self.in_stats(self.stats.lse2)),
            Slot::Address(offset_of!(DeltaParams, delta), self.in_stats(self.stats.delta)),
        ];
        if self.request.d_lse {
            slots.push(Slot::Address(offset_of!(DeltaParams, d_lse), Memory::Buffer("d_lse")));
        }
        // SAFETY: numbers only, and no padding (asserted where the struct is defined).
        let params = unsafe { Block::zeroed(size_of::<DeltaParams>()).put(0, &params) };
        let kernel = module::index(row.entry)?;
        Ok(Launch { kernel, grid: grid(q.batch(), q.heads(), blocks)?, params, slots })
    }

    /// The launch of a kernel that computes gradients.
    ///
    /// # Errors
    /// [`Error::TooManyJobs`], [`Error::NotBuilt`].
    fn gradients(&self, row: &BackwardRow) -> Result<Launch, Error> {
        let tile = BackwardTile::of(row);
        let Backward { dq, dk, dv, .. } = self.request;
        // Each block holds some rows of one of these; rows are below 2^31.
        let (held, gradients) = match row.part {
            Part::DkDv => (dk, [("dk", dk), ("dv", dv)]),
            Part::Dq => (dq, [("dq", dq), ("dq", dq)]),
        };
        let tiles = (held.rows() as u32).div_ceil(tile.held_rows());
        let [first, second] = gradients.map(|(_, layout)| gradient(layout));
        let params = Block::zeroed(size_of::<BwdParams>());
        let scalars = self.scalars([first, second], tiles);
        // SAFETY: numbers only, and no padding (asserted where the struct is defined).
        let params = unsafe { params.put(offset_of!(BwdParams, scalars), &scalars) };
        let grid = grid(held.batch(), held.heads(), tiles)?;
        let slots = self.slots(&tile, gradients.map(|(name, _)| name));
        Ok(Launch { kernel: module::index(row.entry)?, grid, params, slots })
    }

    /// What threads read of the parameters, yet without addresses.
    fn scalars(&self, [first, second]: [Gradient; 2], tiles: u32) -> BwdScalars {
        let Forward { q, k, v, .. } = self.forward;
        let dk = &self.request.dk;
        let mask = |layout: &Layout, axis: usize| {
            if layout.shape[axis] < dk.shape[axis] { 0 } else { u32::MAX }
        };
        BwdScalars {
            first,
            second,
            lse2: 0,
            delta: 0,
            q_len: q.rows() as u32,
            q_pad: self.stats.q_pad as u32,
            kv_len: k.rows() as u32,
            head_dim: q.head_dim() as u32,
            heads: Divisor::new(q.heads() as u32),
            kv_heads: Divisor::new(dk.heads() as u32),
            group_size: Divisor::new((q.heads() / dk.heads()) as u32),
            tiles: Divisor::new(tiles),
            scale_log2: self.scale_log2,
            scale: self.forward.softmax_scale(),
            kv_batch_masks: [mask(k, 0), mask(v, 0)],
            kv_head_masks: [mask(k, 1), mask(v, 1)],
            ends: self.forward.mask.ends(),
        }
    }

    fn slots(&self, tile: &BackwardTile, [first, second]: [&'static str; 2]) -> Vec<Slot> {
        const SCALARS: usize = offset_of!(BwdParams, scalars);
        const ADDRESS: usize = SCALARS + offset_of!(Gradient, address);
        let Forward { q, k, v, .. } = self.forward;
        let (of_queries, of_keys) = match tile.part {
            Part::DkDv => (tile.walked_rows, WARPGROUP_ROWS),
            Part::Dq => (WARPGROUP_ROWS, tile.walked_rows),
        };
        let map = |at, name, layout: &Layout, rows| {
            let spec = TensorMapSpec::boxed(layout, [PANEL_COLUMNS, rows]);
            Slot::Map(at, Memory::Buffer(name), spec)
        };
        vec![
            map(offset_of!(BwdParams, q), "q", q, of_queries),
            map(offset_of!(BwdParams, k), "k", k, of_keys),
            map(offset_of!(BwdParams, v), "v", v, of_keys),
            map(offset_of!(BwdParams, d_out), "d_out", &self.request.d_out, of_queries),
            Slot::Address(ADDRESS + offset_of!(BwdScalars, first), Memory::Buffer(first)),
            Slot::Address(ADDRESS + offset_of!(BwdScalars, second), Memory::Buffer(second)),
            Slot::Address(SCALARS + offset_of!(BwdScalars, lse2), self.in_stats(self.stats.lse2)),
            Slot::Address(SCALARS + offset_of!(BwdScalars, delta), self.in_stats(self.stats.delta)),
        ]
    }
}

/// Blocks of a grid with so many for each head of each batch entry.
///
/// # Errors
/// [`Error::TooManyJobs`].
fn grid(batch: usize, heads: usize, of_head: u32) -> Result<u32, Error> {
    let got = batch as u128 * heads as u128 * u128::from(of_head);
    if got > u128::from(GRID_LIMIT) {
        return Err(Error::TooManyJobs { got, limit: GRID_LIMIT });
    }
    Ok(got as u32)
}

/// How the first kernel walks a tensor.
fn source(layout: &Layout) -> Source {
    let [batch_stride, head_stride, row_stride, _] =
        layout.effective_strides().map(|stride| stride as u64);
    Source { address: 0, batch_stride, head_stride, row_stride }
}

/// How kernels walk a gradient.
fn gradient(layout: &Layout) -> Gradient {
    let Source { address, batch_stride, head_stride, row_stride } = source(layout);
    Gradient { address, batch_stride, head_stride, row_stride }
}
