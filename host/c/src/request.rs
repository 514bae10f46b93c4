//! `fulgurite_request`, and what it means.

use fulgurite::{DeviceFacts, Dtype, Forward, Layout, Mask, Plan};

use crate::outcome::Failure;

/// `fulgurite_strides` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Strides {
    /// Of batch entries, in elements.
    pub batch: u64,
    /// Of heads, in elements.
    pub head: u64,
    /// Of rows, in elements.
    pub row: u64,
}

/// `fulgurite_request` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Bytes of this struct.
    pub size_bytes: u32,
    /// 0: bf16, 1: f16.
    pub dtype: u32,
    /// 0: full, 1: causal.
    pub mask: u32,
    /// 1 if launches write the log-sum-exp, else 0.
    pub lse: u32,
    /// Factor of the scores; 0: `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Ordinal of the GPU.
    pub device: u32,
    /// Batch entries.
    pub batch: u64,
    /// Query heads.
    pub heads: u64,
    /// Heads of k and v.
    pub heads_kv: u64,
    /// Rows of q and out.
    pub q_len: u64,
    /// Rows of k and v.
    pub kv_len: u64,
    /// Columns of a head.
    pub head_dim: u64,
    /// Strides of the queries.
    pub q: Strides,
    /// Strides of the keys.
    pub k: Strides,
    /// Strides of the values.
    pub v: Strides,
    /// Strides of the output.
    pub out: Strides,
}

impl Request {
    /// Copies the caller's request, once its size is known to be right.
    ///
    /// # Safety
    /// `request` is null or points to a request, or to another struct that starts with its size.
    pub(crate) unsafe fn read(request: *const Request) -> Result<Request, Failure> {
        if request.is_null() {
            return Err(Failure::null("request"));
        }
        // SAFETY: not null; every struct of this name starts with its size.
        let got = unsafe { request.cast::<u32>().read() };
        let want = size_of::<Request>();
        if got as usize != want {
            return Err(Failure::argument(format!(
                "request.size_bytes is {got}, this library expects {want}: set it to \
                 sizeof(fulgurite_request), and use header and library of one version"
            )));
        }
        // SAFETY: it says that it is a request of this version.
        Ok(unsafe { request.read() })
    }

    /// The request in the words of the host crate.
    pub(crate) fn forward(&self) -> Result<Forward, Failure> {
        let dtype = choose(
            "dtype",
            self.dtype,
            &[("FULGURITE_BF16", Dtype::Bf16), ("FULGURITE_F16", Dtype::F16)],
        )?;
        let mask = choose(
            "mask",
            self.mask,
            &[("FULGURITE_MASK_FULL", Mask::Full), ("FULGURITE_MASK_CAUSAL", Mask::Causal)],
        )?;
        let lse = choose("lse", self.lse, &[("without", false), ("with log-sum-exp", true)])?;
        let rows_of_q = [self.batch, self.heads, self.q_len, self.head_dim];
        let rows_of_kv = [self.batch, self.heads_kv, self.kv_len, self.head_dim];
        let layout = |shape, strides: &Strides| {
            let strides = [strides.batch, strides.head, strides.row, 1];
            Ok::<_, Failure>(Layout::strided(dtype, sizes(shape)?, sizes(strides)?))
        };
        Ok(Forward {
            q: layout(rows_of_q, &self.q)?,
            k: layout(rows_of_kv, &self.k)?,
            v: layout(rows_of_kv, &self.v)?,
            out: layout(rows_of_q, &self.out)?,
            mask,
            // Only +0 stands for the default: -0 is no scale, as in Rust.
            scale: (self.scale.to_bits() != 0).then_some(self.scale),
            lse,
        })
    }
}

/// Finds what is wrong with a request whatever the device, so that it is told even without one.
pub(crate) fn check(forward: &Forward) -> Result<(), Failure> {
    Plan::new(forward, &DeviceFacts::h200())?;
    Ok(())
}

/// What a number of the header stands for: its place in `meanings`, which have names.
fn choose<T: Copy>(field: &str, got: u32, meanings: &[(&str, T)]) -> Result<T, Failure> {
    meanings.get(got as usize).map(|meaning| meaning.1).ok_or_else(|| {
        let named: Vec<String> = meanings
            .iter()
            .enumerate()
            .map(|(number, (name, _))| format!("{number} ({name})"))
            .collect();
        let allowed = named.join(" or ");
        Failure::argument(format!("request.{field} is {got}: it must be {allowed}"))
    })
}

fn sizes(all: [u64; 4]) -> Result<[usize; 4], Failure> {
    let mut sizes = [0; 4];
    for (size, got) in sizes.iter_mut().zip(all) {
        *size = usize::try_from(got).map_err(|_| {
            Failure::argument(format!("the size or stride {got} does not fit this machine"))
        })?;
    }
    Ok(sizes)
}
