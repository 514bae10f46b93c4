//! From a forward request in 8 bits to launches: what the quantiser reads and leaves in the
//! workspace, and what the forward kernel reads of that.

use std::mem::offset_of;

use fulgurite_spec::launch::WARPGROUP_ROWS;
use fulgurite_spec::quantise::{
    BLOCK_ROWS, KvRegion, PartialsRegion, QRegion, QUANTISE, QuantiseParams, QuantiseRow, Source,
    Step,
};
use fulgurite_spec::{
    Divisor, ForwardRow as Variant, Fwd8Params, FwdScalars, QuantScalars, ScaleAddress, Tile,
};

use super::Forward;
use super::check::softmax_scale;
use super::plan::{boxed_map, is_shared, result_slots};
use crate::work::{Block, Launch, Memory, Slot};
use crate::workspace::{GRID_LIMIT, LIMIT_BYTES};
use crate::{DeviceFacts, Dtype, Error, Layout, Workspace, module};

/// A request whose q, k and v are quantised, the kernel that multiplies them, and where the regions
/// lie in the workspace.
pub(super) struct Quantised<'a> {
    request: &'a Forward,
    variant: &'a Variant,
    tile: Tile,
    partials: PartialsRegion,
    q: QRegion,
    kv: KvRegion,
}

impl<'a> Quantised<'a> {
    /// Lays out the workspace.
    ///
    /// # Errors
    /// [`Error::WorkspaceTooLarge`].
    pub(super) fn of(request: &'a Forward, variant: &'a Variant) -> Result<Self, Error> {
        let Forward { q, k, v, .. } = request;
        let tile = Tile::of(variant);
        let (kv_len, head_dim) = (k.rows() as u64, u64::from(variant.head_dim));
        // Batch and heads are below 2^32 each.
        let entries = |layout: &Layout| layout.batch() as u64 * layout.heads() as u64;
        let (of_k, of_v) = (entries(k), entries(v));
        let regions = || {
            let partials = PartialsRegion::of(of_k.max(of_v), kv_len, head_dim)?;
            let q = QRegion::of(entries(q), q.rows() as u64, head_dim)?;
            let kv_rows = u64::from(tile.kv_rows);
            let kv = KvRegion::of([of_k, of_v], kv_len, head_dim, kv_rows, tile.transposes_v())?;
            let sizes = [partials.bytes, q.bytes, kv.bytes];
            let head = Workspace::HEAD_BYTES as u64;
            let bytes = sizes.iter().try_fold(head, |sum, &bytes| sum.checked_add(bytes))?;
            (bytes <= LIMIT_BYTES).then_some((partials, q, kv))
        };
        let too_large = Error::WorkspaceTooLarge { limit: LIMIT_BYTES };
        let (partials, q, kv) = regions().ok_or(too_large)?;
        Ok(Quantised { request, variant, tile, partials, q, kv })
    }

    /// Where the regions of the partial sums, of Q and of K and V begin, behind the workspace's
    /// head and each other, and where the last one ends.
    fn places(&self) -> [u64; 4] {
        let partials = Workspace::HEAD_BYTES as u64;
        let q = partials + self.partials.bytes;
        let kv = q + self.q.bytes;
        [partials, q, kv, kv + self.kv.bytes]
    }

    /// Bytes of the whole workspace.
    pub(super) fn workspace_bytes(&self) -> u64 {
        self.places()[3]
    }

    /// A place in the region of Q.
    fn in_q(&self, offset: u64) -> Memory {
        Memory::Workspace(self.places()[1] + offset)
    }

    /// A place in the region of K and V.
    fn in_kv(&self, offset: u64) -> Memory {
        Memory::Workspace(self.places()[2] + offset)
    }

    /// The launches in front of the forward kernel's, in their order.
    ///
    /// # Errors
    /// [`Error::TooManyJobs`]; those of devices that cannot run the kernels.
    pub(super) fn quantiser(&self, device: &DeviceFacts) -> Result<Vec<Launch>, Error> {
        let Forward { q, k, v, .. } = self.request;
        let kv_entries = k.batch().max(v.batch()) as u128 * k.heads() as u128;
        let [q_blocks, k_blocks, v_blocks] = self.blocks();
        let params = self.quantiser_params();
        let slots = self.quantiser_slots();
        let steps = [
            (Step::Statistics, q.dtype, kv_entries * u128::from(self.partials.chunks)),
            (Step::Means, Dtype::F32, kv_entries),
            (
                Step::Quantise,
                q.dtype,
                blocks(q, q_blocks) + blocks(k, k_blocks) + blocks(v, v_blocks),
            ),
        ];
        let launch = |(step, dtype, got): (Step, Dtype, u128)| {
            let row = quantiser_row(step, dtype, self.variant.head_dim)?;
            device.check(&row.kernel())?;
            if got > u128::from(GRID_LIMIT) {
                return Err(Error::TooManyJobs { got, limit: GRID_LIMIT });
            }
            let kernel = module::index(row.entry)?;
            Ok(Launch { kernel, grid: got as u32, params: params.clone(), slots: slots.clone() })
        };
        steps.into_iter().map(launch).collect()
    }

    /// Blocks of the last step for one head of Q, of K and of V, none if V stays as it is. Rows are
    /// below 2^31.
    fn blocks(&self) -> [u32; 3] {
        let q_blocks = self.request.q.rows().div_ceil(BLOCK_ROWS as usize);
        let v_keys = if self.tile.transposes_v() { self.kv.kv_pad } else { 0 };
        [q_blocks as u32, self.kv.kv_tiles as u32, (v_keys / u64::from(BLOCK_ROWS)) as u32]
    }

    /// Parameters of all steps, yet without addresses.
    fn quantiser_params(&self) -> Block {
        let Forward { q, k, v, .. } = self.request;
        let [q_blocks, k_blocks, v_blocks] =
            self.blocks().map(|blocks| Divisor::new(blocks.max(1)));
        let params = QuantiseParams {
            q: source(self.request, q),
            k: source(self.request, k),
            v: source(self.request, v),
            q_heads: Divisor::new(q.heads() as u32),
            kv_heads: Divisor::new(k.heads() as u32),
            group_size: Divisor::new((q.heads() / k.heads()) as u32),
            q_blocks,
            k_blocks,
            v_blocks,
            chunks: Divisor::new(self.partials.chunks as u32),
            head_dim: q.head_dim() as u32,
            q_len: q.rows() as u32,
            kv_len: k.rows() as u32,
            kv_pad: self.kv.kv_pad as u32,
            kv_rows: self.tile.kv_rows,
            batch: q.batch() as u32,
            k_batch: k.batch() as u32,
            v_batch: v.batch() as u32,
            scale: softmax_scale(self.request),
            ..QuantiseParams::NOTHING
        };
        // SAFETY: numbers only, and no padding (asserted where the struct is defined).
        unsafe { Block::zeroed(size_of::<QuantiseParams>()).put(0, &params) }
    }

    fn quantiser_slots(&self) -> Vec<Slot> {
        const ADDRESS: usize = offset_of!(Source, address);
        let Quantised { q, kv, .. } = self;
        let (given, in_q, in_kv) = (Memory::Buffer, |at| self.in_q(at), |at| self.in_kv(at));
        let mut slots = vec![
            Slot::Address(offset_of!(QuantiseParams, q) + ADDRESS, given("q")),
            Slot::Address(offset_of!(QuantiseParams, k) + ADDRESS, given("k")),
            Slot::Address(offset_of!(QuantiseParams, v) + ADDRESS, given("v")),
            Slot::Address(offset_of!(QuantiseParams, q8), in_q(q.q8)),
            Slot::Address(offset_of!(QuantiseParams, q_scale), in_q(q.q_scale)),
            Slot::Address(offset_of!(QuantiseParams, k8), in_kv(kv.k8)),
            Slot::Address(offset_of!(QuantiseParams, k_scale), in_kv(kv.k_scale)),
            Slot::Address(offset_of!(QuantiseParams, k_shift), in_kv(kv.k_shift)),
            Slot::Address(
                offset_of!(QuantiseParams, partials),
                Memory::Workspace(self.places()[0]),
            ),
        ];
        if self.tile.transposes_v() {
            slots.extend([
                Slot::Address(offset_of!(QuantiseParams, v8), in_kv(kv.v8)),
                Slot::Address(offset_of!(QuantiseParams, v_scale), in_kv(kv.v_scale)),
                Slot::Address(offset_of!(QuantiseParams, v_shift), in_kv(kv.v_shift)),
            ]);
        }
        if self.request.lse {
            slots.push(Slot::Address(offset_of!(QuantiseParams, q_shift), in_q(q.q_shift)));
        }
        slots
    }

    /// The launch of the forward kernel.
    ///
    /// # Errors
    /// [`Error::NotBuilt`].
    pub(super) fn forward(&self, grid: u32, scalars: &FwdScalars) -> Result<Launch, Error> {
        launch8(self.variant, grid, (scalars, &self.quant_scalars()), self.forward_slots())
    }

    /// What the forward kernel knows of scales, yet without addresses.
    fn quant_scalars(&self) -> QuantScalars {
        let Forward { q, k, v, out, .. } = self.request;
        let scale = |layout: &Layout, of_head: u64| ScaleAddress {
            address: 0,
            batch_stride: if is_shared(self.request, layout) {
                0
            } else {
                layout.heads() as u64 * of_head
            },
            head_stride: of_head,
        };
        QuantScalars {
            q_scale: scale(q, q.rows() as u64),
            k_scale: scale(k, self.kv.kv_tiles),
            v_scale: scale(v, 1),
            v_shift: 0,
            q_shift: 0,
            q_scale_by_row: 1,
            out_is_f16: u32::from(out.dtype == Dtype::F16),
        }
    }

    fn forward_slots(&self) -> Vec<Slot> {
        const QUANT: usize = offset_of!(Fwd8Params, quant);
        const ADDRESS: usize = QUANT + offset_of!(ScaleAddress, address);
        let Quantised { request, tile, q, kv, .. } = self;
        let [q8, k8] = [&request.q, &request.k].map(|layout| self.rows_of_8_bits(layout));
        let (scores, values) = (tile.score_panel_columns(), tile.value_panel_columns());
        let (in_q, in_kv) = (|at| self.in_q(at), |at| self.in_kv(at));
        let mut slots = vec![
            boxed_map(offset_of!(Fwd8Params, q), in_q(q.q8), &q8, [scores, WARPGROUP_ROWS]),
            boxed_map(offset_of!(Fwd8Params, k), in_kv(kv.k8), &k8, [scores, tile.kv_rows]),
            Slot::Address(ADDRESS + offset_of!(QuantScalars, q_scale), in_q(q.q_scale)),
            Slot::Address(ADDRESS + offset_of!(QuantScalars, k_scale), in_kv(kv.k_scale)),
        ];
        let (v_at, v_box) = (offset_of!(Fwd8Params, v), [values, tile.value_panel_rows()]);
        if tile.transposes_v() {
            let v8 = transposed(tile, &request.v, kv.kv_pad);
            slots.extend([
                boxed_map(v_at, in_kv(kv.v8), &v8, v_box),
                Slot::Address(ADDRESS + offset_of!(QuantScalars, v_scale), in_kv(kv.v_scale)),
                Slot::Address(QUANT + offset_of!(QuantScalars, v_shift), in_kv(kv.v_shift)),
            ]);
        } else {
            slots.push(boxed_map(v_at, Memory::Buffer("v"), &request.v, v_box));
        }
        if request.lse {
            let at = QUANT + offset_of!(QuantScalars, q_shift);
            slots.push(Slot::Address(at, in_q(q.q_shift)));
        }
        slots.extend(result_slots(request, self.variant));
        slots
    }

    /// How q or k of 8 bits lie in the workspace.
    fn rows_of_8_bits(&self, own: &Layout) -> Layout {
        let head_dim = self.tile.head_dim as usize;
        Layout::bhsd(self.tile.scores, own.batch(), own.heads(), own.rows(), head_dim)
    }
}

/// The launch of a forward kernel of 8-bit elements.
///
/// # Errors
/// [`Error::NotBuilt`].
pub(super) fn launch8(
    variant: &Variant,
    grid: u32,
    (scalars, quant): (&FwdScalars, &QuantScalars),
    slots: Vec<Slot>,
) -> Result<Launch, Error> {
    let params = Block::zeroed(size_of::<Fwd8Params>());
    // SAFETY: numbers only, and no padding (asserted where the structs are defined).
    let params = unsafe {
        params
            .put(offset_of!(Fwd8Params, scalars), scalars)
            .put(offset_of!(Fwd8Params, quant), quant)
    };
    Ok(Launch { kernel: module::index(variant.entry)?, grid, params, slots })
}

/// The quantiser's kernel for a step.
///
/// # Errors
/// [`Error::NotBuilt`].
pub(super) fn quantiser_row(
    step: Step,
    dtype: Dtype,
    head_dim: u32,
) -> Result<&'static QuantiseRow, Error> {
    let wanted = (step, dtype, head_dim);
    let row = QUANTISE.iter().find(|row| (row.step, row.dtype, row.head_dim) == wanted);
    row.ok_or_else(|| Error::NotBuilt {
        entry: format!("{step:?} of {}, head dim {head_dim}", dtype.name()),
    })
}

/// Blocks of a tensor of which each head has so many.
pub(super) fn blocks(layout: &Layout, of_head: u32) -> u128 {
    layout.batch() as u128 * layout.heads() as u128 * u128::from(of_head)
}

/// How the quantiser walks a tensor.
pub(super) fn source(request: &Forward, layout: &Layout) -> Source {
    let [batch_stride, head_stride, row_stride, _] =
        layout.effective_strides().map(|stride| stride as u64);
    let batch_stride = if is_shared(request, layout) { 0 } else { batch_stride };
    Source { address: 0, batch_stride, head_stride, row_stride }
}

/// How v of 8 bits lies in a workspace: transposed, with its keys as columns.
pub(super) fn transposed(tile: &Tile, v: &Layout, kv_pad: u64) -> Layout {
    let head_dim = tile.head_dim as usize;
    Layout::bhsd(tile.values, v.batch(), v.heads(), head_dim, kv_pad as usize)
}
