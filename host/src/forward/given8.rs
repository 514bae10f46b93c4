//! From a forward request on tensors of 8 bits to launches: V is transposed in the workspace, q and
//! k are read where they are.

use std::mem::offset_of;

use fulgurite_spec::launch::WARPGROUP_ROWS;
use fulgurite_spec::quantise::{
    BLOCK_ROWS, QuantiseParams, Source, Step, padded_keys, transposed_bytes,
};
use fulgurite_spec::{
    Divisor, ForwardRow as Variant, Fwd8Params, FwdScalars, QuantScalars, ScaleAddress, Tile,
};

use super::Forward;
use super::descale::{DESCALES, Descale};
use super::plan::{boxed_map, result_slots};
use super::quantised::{blocks, launch8, quantiser_row, source, transposed};
use crate::work::{Block, Launch, Memory, Slot};
use crate::workspace::{GRID_LIMIT, LIMIT_BYTES};
use crate::{DeviceFacts, Dtype, Error, Workspace, module};

/// Where transposed V begins in the workspace.
const TRANSPOSED: u64 = Workspace::HEAD_BYTES as u64;

/// A request on tensors of 8 bits, and the kernel that multiplies them.
pub(super) struct Given8<'a> {
    request: &'a Forward,
    variant: &'a Variant,
    tile: Tile,
    kv_pad: u64,
    v_bytes: u64,
}

impl<'a> Given8<'a> {
    /// Lays out the workspace.
    ///
    /// # Errors
    /// [`Error::WorkspaceTooLarge`].
    pub(super) fn of(request: &'a Forward, variant: &'a Variant) -> Result<Self, Error> {
        let v = &request.v;
        // Batch and heads are below 2^32 each.
        let entries = v.batch() as u64 * v.heads() as u64;
        let (kv_len, head_dim) = (v.rows() as u64, u64::from(variant.head_dim));
        let sizes = || {
            let bytes = transposed_bytes(entries, kv_len, head_dim)?;
            let all = bytes.checked_add(TRANSPOSED)?;
            (all <= LIMIT_BYTES).then_some((padded_keys(kv_len)?, bytes))
        };
        let too_large = Error::WorkspaceTooLarge { limit: LIMIT_BYTES };
        let (kv_pad, v_bytes) = sizes().ok_or(too_large)?;
        Ok(Given8 { request, variant, tile: Tile::of(variant), kv_pad, v_bytes })
    }

    /// Bytes of the whole workspace.
    pub(super) fn workspace_bytes(&self) -> u64 {
        TRANSPOSED + self.v_bytes
    }

    /// The launch that transposes V.
    ///
    /// # Errors
    /// [`Error::TooManyJobs`]; those of devices that cannot run the kernel.
    pub(super) fn transpose(&self, device: &DeviceFacts) -> Result<Launch, Error> {
        let Forward { k, v, .. } = self.request;
        let row = quantiser_row(Step::Transpose, Dtype::E4m3, self.variant.head_dim)?;
        device.check(&row.kernel())?;
        let v_blocks = (self.kv_pad / u64::from(BLOCK_ROWS)) as u32;
        let params = QuantiseParams {
            v: source(self.request, v),
            kv_heads: Divisor::new(k.heads() as u32),
            v_blocks: Divisor::new(v_blocks),
            head_dim: v.head_dim() as u32,
            kv_len: v.rows() as u32,
            kv_pad: self.kv_pad as u32,
            v_batch: v.batch() as u32,
            ..QuantiseParams::NOTHING
        };
        // SAFETY: numbers only, and no padding (asserted where the struct is defined).
        let params = unsafe { Block::zeroed(size_of::<QuantiseParams>()).put(0, &params) };
        let address = offset_of!(QuantiseParams, v) + offset_of!(Source, address);
        let slots = vec![
            Slot::Address(address, Memory::Buffer("v")),
            Slot::Address(offset_of!(QuantiseParams, v8), Memory::Workspace(TRANSPOSED)),
        ];
        let grid = blocks(v, v_blocks);
        if grid > u128::from(GRID_LIMIT) {
            return Err(Error::TooManyJobs { got: grid, limit: GRID_LIMIT });
        }
        Ok(Launch { kernel: module::index(row.entry)?, grid: grid as u32, params, slots })
    }

    /// The launch of the forward kernel.
    ///
    /// # Errors
    /// [`Error::NotBuilt`].
    pub(super) fn forward(&self, grid: u32, scalars: &FwdScalars) -> Result<Launch, Error> {
        launch8(self.variant, grid, (scalars, &self.quant_scalars()), self.forward_slots())
    }

    /// What the kernel knows of scales, yet without addresses.
    fn quant_scalars(&self) -> QuantScalars {
        let Forward { q, out, .. } = self.request;
        let [of_q, of_k, of_v] = self.descale();
        let scale = |descale: Descale| {
            let [batch_stride, head_stride] = descale.strides(q);
            ScaleAddress { address: 0, batch_stride, head_stride }
        };
        QuantScalars {
            q_scale: scale(of_q),
            k_scale: scale(of_k),
            v_scale: scale(of_v),
            v_shift: 0,
            q_shift: 0,
            q_scale_by_row: u32::from(of_q == Descale::PerRow),
            out_is_f16: u32::from(out.dtype == Dtype::F16),
        }
    }

    /// What each tensor's numbers are multiplied with, as was checked.
    fn descale(&self) -> [Descale; 3] {
        self.request.descale.unwrap_or([Descale::One; 3])
    }

    fn forward_slots(&self) -> Vec<Slot> {
        const QUANT: usize = offset_of!(Fwd8Params, quant);
        const ADDRESS: usize = QUANT + offset_of!(ScaleAddress, address);
        const SCALES: [usize; 3] = [
            ADDRESS + offset_of!(QuantScalars, q_scale),
            ADDRESS + offset_of!(QuantScalars, k_scale),
            ADDRESS + offset_of!(QuantScalars, v_scale),
        ];
        let Given8 { request, tile, .. } = self;
        let (scores, values) = (tile.score_panel_columns(), tile.value_panel_columns());
        let v8 = transposed(tile, &request.v, self.kv_pad);
        let (q_box, k_box) = ([scores, WARPGROUP_ROWS], [scores, tile.kv_rows]);
        let v_box = [values, tile.value_panel_rows()];
        let mut slots = vec![
            boxed_map(offset_of!(Fwd8Params, q), Memory::Buffer("q"), &request.q, q_box),
            boxed_map(offset_of!(Fwd8Params, k), Memory::Buffer("k"), &request.k, k_box),
            boxed_map(offset_of!(Fwd8Params, v), Memory::Workspace(TRANSPOSED), &v8, v_box),
        ];
        for ((at, (name, _)), descale) in SCALES.iter().zip(DESCALES).zip(self.descale()) {
            if descale != Descale::One {
                slots.push(Slot::Address(*at, Memory::Buffer(name)));
            }
        }
        slots.extend(result_slots(request, self.variant));
        slots
    }
}
