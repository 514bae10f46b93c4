//! What the tests share: the GPU, a small call, its buffers.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fulgurite::cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr};
use fulgurite::{
    Dtype, Element, Error, FlashAttention, Forward, ForwardArgs, Layout, Mask, Prepared, Raw,
};
use half::{bf16, f16};

/// What every output buffer holds before a launch: a value that no test computes.
pub const SENTINEL: f32 = -77.0;

/// Printed also for tests that pass, unlike what `println!` writes.
pub fn aloud(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("stderr is writable");
}

/// One test at a time has the GPU, so that times are not disturbed.
pub fn gpu() -> Option<(FlashAttention, MutexGuard<'static, ()>)> {
    static GPU: Mutex<()> = Mutex::new(());
    let guard = GPU.lock().unwrap_or_else(PoisonError::into_inner);
    match FlashAttention::open(0) {
        Ok(attention) => Some((attention, guard)),
        Err(
            error @ (Error::NoDriver { .. } | Error::NoDevice { .. } | Error::Architecture { .. }),
        ) if std::env::var_os("FULGURITE_REQUIRE_GPU").is_none() => {
            let reason = match error {
                Error::NoDriver { .. } => "no driver",
                Error::NoDevice { .. } => "no GPU",
                _ => "no GPU that runs the kernels",
            };
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            aloud(&format!("skipped: {reason} ({test})"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A small call that touches partial tiles, several KV tiles, grouped heads and the mask.
pub fn request(dtype: Dtype, lse: bool) -> Forward {
    let q = Layout::bshd(dtype, 2, 333, 4, 128);
    let kv = Layout::bshd(dtype, 2, 444, 2, 128);
    let forward = Forward::new(q, kv, kv, q, Mask::Causal);
    if lse { forward.with_lse() } else { forward }
}

/// Reproducible values between -1 and 1.
pub fn values<T: Element + FromF32>(count: usize, seed: u32) -> Vec<T> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        T::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

pub trait FromF32 {
    fn from_f32(value: f32) -> Self;
    fn bits(self) -> u16;
}

impl FromF32 for bf16 {
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
    fn bits(self) -> u16 {
        self.to_bits()
    }
}

impl FromF32 for f16 {
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
    fn bits(self) -> u16 {
        self.to_bits()
    }
}

/// Inputs and an output full of the sentinel.
pub struct Buffers<T> {
    pub q: CudaSlice<T>,
    pub k: CudaSlice<T>,
    pub v: CudaSlice<T>,
    pub out: CudaSlice<T>,
}

impl<T: Element + DeviceRepr + FromF32 + Default> Buffers<T> {
    pub fn new(stream: &Arc<CudaStream>, prepared: &Prepared<Forward>) -> Self {
        let [q, k, v, out] =
            ["q", "k", "v", "out"].map(|name| prepared.plan().buffer(name).unwrap().elements);
        let upload = |data: Vec<T>| stream.clone_htod(&data).unwrap();
        Buffers {
            q: upload(values(q, 1)),
            k: upload(values(k, 2)),
            v: upload(values(v, 3)),
            out: upload(vec![T::from_f32(SENTINEL); out]),
        }
    }

    pub fn launch(
        &mut self,
        stream: &Arc<CudaStream>,
        prepared: &Prepared<Forward>,
    ) -> Result<(), Error> {
        prepared.launch(stream, ForwardArgs::new(&self.q, &self.k, &self.v, &mut self.out))
    }

    /// Addresses; the caller orders the streams.
    pub fn addresses(&mut self, stream: &Arc<CudaStream>) -> [u64; 4] {
        let addresses = [
            self.q.device_ptr(stream).0,
            self.k.device_ptr(stream).0,
            self.v.device_ptr(stream).0,
            self.out.device_ptr_mut(stream).0,
        ];
        stream.synchronize().unwrap();
        addresses
    }

    pub fn bits(&self, stream: &Arc<CudaStream>) -> Vec<u16> {
        bits(&stream.clone_dtoh(&self.out).unwrap())
    }

    pub fn forget_output(&mut self, stream: &Arc<CudaStream>) {
        let sentinels = vec![T::from_f32(SENTINEL); self.out.len()];
        stream.memcpy_htod(&sentinels, &mut self.out).unwrap();
        stream.synchronize().unwrap();
    }
}

/// The arguments of a launch on bare addresses.
pub fn raw([q, k, v, out]: [u64; 4]) -> ForwardArgs<Raw> {
    ForwardArgs::new(q, k, v, out)
}

pub fn bits<T: FromF32 + Copy>(values: &[T]) -> Vec<u16> {
    values.iter().map(|value| value.bits()).collect()
}

pub fn untouched<T: FromF32>(count: usize) -> Vec<u16> {
    vec![T::from_f32(SENTINEL).bits(); count]
}

/// The output of one plain launch, checked to be one: every element written, and bounded by the
/// values that it averages.
pub fn expected<T: Element + DeviceRepr + FromF32 + Default + Into<f32>>(
    attention: &FlashAttention,
) -> Vec<u16> {
    let stream = attention.context().default_stream();
    let prepared = attention.plan(&request(T::DTYPE, false)).unwrap();
    let mut buffers = Buffers::<T>::new(&stream, &prepared);
    buffers.launch(&stream, &prepared).unwrap();
    let out = stream.clone_dtoh(&buffers.out).unwrap();
    assert!(out.iter().all(|&value| value.into().abs() <= 1.0), "out is not an average of v");
    assert!(out.iter().any(|&value| value.into() != 0.0), "out is zero everywhere");
    bits(&out)
}
