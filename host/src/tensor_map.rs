//! Tensor maps: how TMA finds a box of a tensor. The specification is pure; encoding it is the
//! driver's work (or an emulator's).

use cudarc::driver::sys;
use fulgurite_spec::{Dtype, TensorMap};

use crate::driver;
use crate::{Error, Layout};

/// One tensor as TMA sees it: four dimensions, innermost (head_dim) first.
///
/// The rest follows or is the same for all maps: a swizzle over the [row of a
/// box](Self::swizzle_bytes), no interleave, L2 promotion of 256 bytes, elements out of bounds read
/// as zero, every element along each axis (element strides 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMapSpec {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes in elements: head_dim, rows, heads, batch.
    pub dims: [u64; 4],
    /// Strides in bytes of rows, heads and batch; head_dim is contiguous.
    pub stride_bytes: [u64; 3],
    /// Sizes in elements of the box that one copy loads, in the order of `dims`.
    pub box_dims: [u32; 4],
}

impl TensorMapSpec {
    /// The map of a tensor whose boxes are panels of so many columns and rows.
    pub fn boxed(layout: &Layout, [box_columns, box_rows]: [u32; 2]) -> Self {
        // The driver takes no size of 0. Nobody loads from the map of an empty tensor.
        let [batch, heads, rows, head_dim] = layout.shape.map(|size| size.max(1) as u64);
        let element_bytes = u64::from(layout.dtype.bytes());
        // What overflows is no layout of a plan, and too large for every encoder.
        let [batch_stride, head_stride, row_stride, _] =
            layout.effective_strides().map(|stride| (stride as u64).saturating_mul(element_bytes));
        TensorMapSpec {
            dtype: layout.dtype,
            dims: [head_dim, rows, heads, batch],
            stride_bytes: [row_stride, head_stride, batch_stride],
            box_dims: [box_columns, box_rows, 1, 1],
        }
    }

    /// Bytes over which units of 16 bytes are permuted in shared memory: 32, 64 or 128, the fewest
    /// that hold a row of a box.
    pub fn swizzle_bytes(&self) -> u32 {
        self.box_dims[0].saturating_mul(self.dtype.bytes()).clamp(32, 128).next_power_of_two()
    }

    /// Has the driver encode the map for a tensor at device address `address`.
    ///
    /// # Errors
    /// [`Error::Driver`] if the driver refuses, [`Error::NoDriver`] without one.
    pub fn encode(&self, address: u64) -> Result<TensorMap, Error> {
        driver::probe()?;
        self.encode_loaded(address)
    }

    /// [`encode`](Self::encode) when the driver is known to be loaded.
    pub(crate) fn encode_loaded(&self, address: u64) -> Result<TensorMap, Error> {
        let dtype = match self.dtype {
            Dtype::Bf16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            Dtype::F16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            Dtype::F32 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
            Dtype::I32 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_INT32,
            Dtype::I64 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_INT64,
            // TMA copies types of 8 bits as bytes.
            _ => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        };
        let swizzle = match self.swizzle_bytes() {
            32 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
            64 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            _ => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        };
        // The binding's type carries the 64-byte alignment that the driver asks for.
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: the arrays have rank (4), rank - 1 and rank elements; `map` is writable and
        // aligned; the address is only stored, and a bad one is refused or faults on the device.
        let code = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                dtype,
                4,
                address as *mut core::ffi::c_void,
                self.dims.as_ptr(),
                self.stride_bytes.as_ptr(),
                self.box_dims.as_ptr(),
                [1_u32; 4].as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        driver::check(code, "cuTensorMapEncodeTiled", || format!("{self:?} at {address:#x}"))?;
        Ok(TensorMap(map.opaque))
    }
}
