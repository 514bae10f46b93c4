//! Probes on a GPU.

use std::collections::HashMap;
use std::ffi::{CString, c_void};

use fulgurite::cudarc::driver::{CudaSlice, DevicePtr, DriverError, result, sys};
use fulgurite_gpu::emu::Swizzle;
use fulgurite_spec::probes::{PROBE_SMEM_BYTES, PROBE_THREADS, PROBES};
use fulgurite_spec::{ProbeParams, TensorMap};

use super::{Case, Seen, Tensor};
use crate::gpu::{Gpu, failed};

/// PTX of each probe, as far as it was there when this program was built.
static PTX: [Option<&str>; PROBES.len()] = include!(concat!(env!("OUT_DIR"), "/probe_table.rs"));

/// The probes of a GPU, each loaded on its first use and for the rest of the process.
pub struct Probes<'a> {
    gpu: &'a Gpu,
    loaded: HashMap<&'static str, sys::CUfunction>,
}

impl<'a> Probes<'a> {
    /// None loaded yet.
    pub fn of(gpu: &'a Gpu) -> Probes<'a> {
        Probes { gpu, loaded: HashMap::new() }
    }

    fn function(&mut self, entry: &'static str) -> Result<sys::CUfunction, String> {
        if let Some(function) = self.loaded.get(entry) {
            return Ok(*function);
        }
        let text = PROBES.iter().position(|probe| *probe == entry).and_then(|place| PTX[place]);
        let text = text.ok_or("its PTX is not in this build: run `cargo xtask build`")?;
        let image = CString::new(text).map_err(|error| error.to_string())?;
        let name = CString::new(entry).map_err(|error| error.to_string())?;
        // SAFETY: the image is PTX that ends with a zero byte; the module is never unloaded.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) };
        let module = module.map_err(failed("loading the PTX"))?;
        // SAFETY: the module was just loaded.
        let function = unsafe { result::module::get_function(module, name) };
        let function = function.map_err(failed("finding the entry"))?;
        self.loaded.insert(entry, function);
        Ok(function)
    }

    /// Runs a case.
    ///
    /// # Errors
    /// What the driver says, or that the probe hangs.
    pub fn run(&mut self, case: &Case) -> Result<Seen, String> {
        let (gpu, stream) = (self.gpu, self.gpu.stream());
        gpu.attention().context().bind_to_thread().map_err(failed("binding the context"))?;
        let function = self.function(case.entry)?;
        let mut seen = case.blank();
        let contents = [&case.input, &seen.out, &case.source.bytes, &seen.target];
        let mut buffers = Vec::new();
        for bytes in contents {
            buffers.push(upload(gpu, bytes).map_err(failed("copying to the device"))?);
        }
        let addresses: Vec<u64> = buffers.iter().map(|it| it.device_ptr(stream).0).collect();
        let maps = [encode(&case.source, addresses[2])?, encode(&case.target, addresses[3])?];
        let params: ProbeParams = case.params(maps, [addresses[0], addresses[1]]);
        let mut arguments = [std::ptr::from_ref(&params).cast_mut().cast::<c_void>()];
        let threads = (PROBE_THREADS, 1, 1);
        // SAFETY: the kernel takes one parameter, a `ProbeParams` by value, which the driver copies
        // before it returns; the buffers live until the stream has ended.
        let launched = unsafe {
            let stream = stream.cu_stream();
            let grid = (1, 1, 1);
            result::launch_kernel(function, grid, threads, PROBE_SMEM_BYTES, stream, &mut arguments)
        };
        launched.map_err(failed("launching"))?;
        if let Err(error) = gpu.wait() {
            // A kernel may still write here: the memory stays allocated, and freeing would wait.
            std::mem::forget(buffers);
            return Err(error);
        }
        for (bytes, buffer) in [(&mut seen.out, &buffers[1]), (&mut seen.target, &buffers[3])] {
            let got = stream.clone_dtoh(buffer).map_err(failed("copying back"))?;
            let len = bytes.len();
            bytes.copy_from_slice(&got[..len]);
        }
        Ok(seen)
    }
}

/// Memory with these contents; there is always some.
fn upload(gpu: &Gpu, bytes: &[u8]) -> Result<CudaSlice<u8>, DriverError> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(16) + 16, 0);
    gpu.stream().clone_htod(&padded)
}

/// Has the driver encode the map of a tensor at `address`.
fn encode(tensor: &Tensor, address: u64) -> Result<TensorMap, String> {
    let fields = &tensor.map;
    let swizzle = match fields.swizzle {
        Swizzle::None => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        Swizzle::Bytes32 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        Swizzle::Bytes64 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        Swizzle::Bytes128 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    };
    // The binding's type carries the 64-byte alignment that the driver asks for.
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: the arrays have rank (4), rank - 1 and rank elements; `map` is writable and aligned,
    // the address is only stored.
    let code = unsafe {
        sys::cuTensorMapEncodeTiled(
            &raw mut map,
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT16,
            4,
            address as *mut c_void,
            fields.dims.as_ptr(),
            fields.stride_bytes.as_ptr(),
            fields.box_dims.as_ptr(),
            [1_u32; 4].as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    code.result().map_err(failed("encoding a tensor map"))?;
    Ok(TensorMap(map.opaque))
}
