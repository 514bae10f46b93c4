//! The tensors of a whole sequence, and those that a rank holds of them.

use fulgurite::cudarc::driver::{CudaSlice, DevicePtr};
use fulgurite::{
    Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask, RawWorkspace, Workspace,
};
use fulgurite_parallel::{
    Parallel, ParallelOptions, ParallelPrepared, Sharded, Shards, Strategy, Work,
};
use half::bf16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Sizes of a call.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// bf16 or f16.
    pub dtype: Dtype,
    /// Batch entries.
    pub batch: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Rows of the whole sequence.
    pub rows: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// The mask.
    pub mask: Mask,
    /// Tensors are [batch, rows, heads, head_dim], not [batch, heads, rows, head_dim].
    pub rows_first: bool,
    /// Whether the log-sum-exp is wanted.
    pub lse: bool,
}

/// Elements as bits.
pub type Bits = Vec<u16>;

/// Output and log-sum-exp, both in the order [batch, heads, rows].
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    /// Elements of the output.
    pub out: Bits,
    /// The log-sum-exp, as bits.
    pub lse: Vec<u32>,
}

impl Sizes {
    /// The layout of a tensor with so many heads and rows.
    pub fn layout(&self, heads: usize, rows: usize) -> Layout {
        let Sizes { dtype, batch, head_dim, rows_first, .. } = *self;
        match rows_first {
            true => Layout::bshd(dtype, batch, rows, heads, head_dim),
            false => Layout::bhsd(dtype, batch, heads, rows, head_dim),
        }
    }

    /// The request of so many rows.
    pub fn request(&self, rows: usize) -> Forward {
        let (qo, kv) = (self.layout(self.heads, rows), self.layout(self.kv_heads, rows));
        let forward = Forward::new(qo, kv, kv, qo, self.mask);
        if self.lse { forward.with_lse() } else { forward }
    }

    /// Random q, k and v in the order [batch, heads, rows, head_dim].
    pub fn values(&self, seed: u64) -> [Bits; 3] {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        [self.heads, self.kv_heads, self.kv_heads].map(|heads| {
            let count = self.batch * heads * self.rows * self.head_dim;
            let mut value = || {
                // Sums of three are near enough to normal numbers, and soon made.
                let value = (0..3).map(|_| random.random_range(-1.0_f32..1.0)).sum();
                match self.dtype {
                    Dtype::F16 => half::f16::from_f32(value).to_bits(),
                    _ => half::bf16::from_f32(value).to_bits(),
                }
            };
            (0..count).map(|_| value()).collect()
        })
    }

    /// The offsets of the rows of a tensor: in the order [batch, heads, rows], and in its layout.
    fn places(layout: Layout, positions: &[usize], total: usize) -> Vec<(usize, usize)> {
        let [batch, heads, rows, head_dim] = layout.shape;
        let mut places = Vec::with_capacity(batch * heads * rows);
        for entry in 0..batch {
            for head in 0..heads {
                for (row, position) in positions.iter().enumerate() {
                    let [by_entry, by_head, by_row, _] = layout.strides;
                    let whole = ((entry * heads + head) * total + position) * head_dim;
                    places.push((whole, entry * by_entry + head * by_head + row * by_row));
                }
            }
        }
        places
    }
}

/// Buffers of a rank, or of one GPU with all rows.
pub struct Buffers {
    sizes: Sizes,
    positions: Vec<usize>,
    /// f16 too, by its bits.
    tensors: [CudaSlice<bf16>; 4],
    lse: CudaSlice<f32>,
    workspace: Workspace,
    /// That of launches on bare addresses.
    room: Option<CudaSlice<u8>>,
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

impl Buffers {
    /// The rows at these positions, on a device.
    ///
    /// # Errors
    /// A message if the driver refuses.
    pub fn new(
        attention: &FlashAttention,
        sizes: Sizes,
        values: &[Bits; 3],
        positions: Vec<usize>,
    ) -> Result<Buffers, String> {
        let stream = attention.context().default_stream();
        let rows = positions.len();
        let heads = [sizes.heads, sizes.kv_heads, sizes.kv_heads];
        let upload = |(values, heads): (&Bits, usize)| {
            let layout = sizes.layout(heads, rows);
            let mut own = vec![0_u16; sizes.batch * heads * rows * sizes.head_dim];
            for (from, to) in Sizes::places(layout, &positions, sizes.rows) {
                let (from, to) = (from..from + sizes.head_dim, to..to + sizes.head_dim);
                own[to].copy_from_slice(&values[from]);
            }
            stream
                .clone_htod::<bf16, [bf16]>(own.reinterpret_cast())
                .map_err(failed("copying to the device"))
        };
        let [q, k, v] = [0, 1, 2].map(|index| upload((&values[index], heads[index])));
        let (q, k, v) = (q?, k?, v?);
        let nan = vec![u16::MAX; q.len()];
        let out = stream
            .clone_htod::<bf16, [bf16]>(nan.reinterpret_cast())
            .map_err(failed("copying to the device"))?;
        let numbers = sizes.batch * sizes.heads * rows;
        let lse = stream.alloc_zeros(numbers).map_err(failed("allocating"))?;
        let workspace = Workspace::new(&stream);
        Ok(Buffers { sizes, positions, tensors: [q, k, v, out], lse, workspace, room: None })
    }

    /// Has room for a plan.
    ///
    /// # Errors
    /// A message if the driver refuses.
    pub fn grow(&mut self, bytes: u64) -> Result<(), String> {
        self.workspace.grow(bytes).map_err(failed("the workspace"))
    }

    /// The arguments of a launch.
    pub fn args(&mut self) -> ForwardArgs<fulgurite::Device<'_>> {
        let dtype = self.sizes.dtype;
        let [q, k, v, out] = &mut self.tensors;
        let read = |tensor| fulgurite::Read::from(tensor).typed(dtype);
        let out = fulgurite::Write::from(out).typed(dtype);
        let args = ForwardArgs::new(read(&*q), read(&*k), read(&*v), out);
        let args = args.workspace(&mut self.workspace);
        if self.sizes.lse { args.lse(&mut self.lse) } else { args }
    }

    /// Launches a rank's part.
    ///
    /// # Errors
    /// The launch's.
    pub fn launch(
        &mut self,
        prepared: &ParallelPrepared,
        attention: &FlashAttention,
    ) -> Result<Work, fulgurite_parallel::Error> {
        prepared.launch(&attention.context().default_stream(), self.args())
    }

    /// The same by bare addresses.
    ///
    /// # Errors
    /// The launch's.
    pub fn launch_raw(
        &mut self,
        prepared: &ParallelPrepared,
        attention: &FlashAttention,
    ) -> Result<Work, String> {
        let stream = attention.context().default_stream();
        let bytes = prepared.plan().workspace_bytes();
        let room = stream.alloc_zeros(bytes as usize).map_err(failed("allocating"))?;
        let room = self.room.insert(room).device_ptr(&stream).0;
        let [q, k, v, out] = self.tensors.each_ref().map(|tensor| tensor.device_ptr(&stream).0);
        let lse = self.lse.device_ptr(&stream).0;
        let args = ForwardArgs::new(q, k, v, out).lse(lse);
        let args = args.workspace(RawWorkspace { address: room, bytes });
        // SAFETY: the buffers are those of the plan's own rows, the workspace has the plan's bytes;
        // all stay until the stream, which is the device's default one, was waited for.
        let launched = unsafe { prepared.launch_raw(stream.cu_stream(), args) };
        launched.map_err(|error| error.to_string())
    }

    /// Puts what was written into the results of the whole sequence.
    ///
    /// # Errors
    /// A message if the driver refuses.
    pub fn collect(&self, attention: &FlashAttention, all: &mut Results) -> Result<(), String> {
        let stream = attention.context().default_stream();
        let out = stream.clone_dtoh(&self.tensors[3]).map_err(failed("copying from the device"))?;
        let out: &[u16] = out.reinterpret_cast();
        let lse = stream.clone_dtoh(&self.lse).map_err(failed("copying from the device"))?;
        let layout = self.sizes.layout(self.sizes.heads, self.positions.len());
        let places = Sizes::places(layout, &self.positions, self.sizes.rows);
        for (number, (to, from)) in places.into_iter().enumerate() {
            let head_dim = self.sizes.head_dim;
            all.out[to..to + head_dim].copy_from_slice(&out[from..from + head_dim]);
            all.lse[to / head_dim] = lse[number].to_bits();
        }
        Ok(())
    }
}

impl Results {
    /// Nothing yet.
    pub fn empty(sizes: &Sizes) -> Results {
        let rows = sizes.batch * sizes.heads * sizes.rows;
        Results { out: vec![u16::MAX; rows * sizes.head_dim], lse: vec![u32::MAX; rows] }
    }

    /// On one GPU.
    ///
    /// # Errors
    /// A message if it cannot be computed.
    pub fn of_one(
        attention: &FlashAttention,
        sizes: Sizes,
        values: &[Bits; 3],
    ) -> Result<Results, String> {
        let mut buffers = Buffers::new(attention, sizes, values, (0..sizes.rows).collect())?;
        let stream = attention.context().default_stream();
        let launched = attention.launch(&stream, &sizes.request(sizes.rows), buffers.args());
        launched.map_err(|error| error.to_string())?;
        let mut results = Results::empty(&sizes);
        buffers.collect(attention, &mut results)?;
        Ok(results)
    }

    /// Elements and numbers that differ.
    pub fn differences(&self, other: &Results) -> [usize; 2] {
        let out = self.out.iter().zip(&other.out).filter(|(one, other)| one != other).count();
        let lse = self.lse.iter().zip(&other.lse).filter(|(one, other)| one != other).count();
        [out, lse]
    }
}

/// A rank's plan and buffers.
///
/// # Errors
/// A message if the plan is refused, or the driver refuses.
pub fn prepare(
    parallel: &Parallel,
    sizes: Sizes,
    values: &[Bits; 3],
    (shards, strategy): (&Shards, Strategy),
    options: &ParallelOptions,
) -> Result<(ParallelPrepared, Buffers), String> {
    let rank = parallel.communicator().rank();
    let positions: Vec<usize> = shards.positions(rank).collect();
    let sharded = Sharded::new(&sizes.request(positions.len()), shards.clone()).strategy(strategy);
    let prepared = parallel.plan_with(&sharded, options).map_err(|error| error.to_string())?;
    let mut buffers = Buffers::new(parallel.attention(), sizes, values, positions)?;
    buffers.grow(prepared.plan().workspace_bytes())?;
    Ok((prepared, buffers))
}

/// Random elements that tensors of measurements repeat.
const BLOCK: usize = 1 << 22;

impl Buffers {
    /// So many rows of random numbers that come again and again: soon made, for measuring.
    ///
    /// # Errors
    /// A message if the driver refuses.
    pub fn repeated(
        attention: &FlashAttention,
        sizes: Sizes,
        rows: usize,
    ) -> Result<Buffers, String> {
        let stream = attention.context().default_stream();
        let block = Sizes { rows: BLOCK, heads: 1, kv_heads: 1, head_dim: 1, batch: 1, ..sizes };
        let [block, ..] = block.values(1);
        let block = stream
            .clone_htod::<bf16, [bf16]>(block.reinterpret_cast())
            .map_err(failed("copying to the device"))?;
        let tensor = |heads: usize| {
            let count = sizes.batch * heads * rows * sizes.head_dim;
            let mut tensor = stream.alloc_zeros::<bf16>(count).map_err(failed("allocating"))?;
            for start in (0..count).step_by(BLOCK) {
                let end = (start + BLOCK).min(count);
                let mut part = tensor.slice_mut(start..end);
                let copied = stream.memcpy_dtod(&block.slice(..end - start), &mut part);
                copied.map_err(failed("copying on the device"))?;
            }
            Ok::<_, String>(tensor)
        };
        let tensors = [
            tensor(sizes.heads)?,
            tensor(sizes.kv_heads)?,
            tensor(sizes.kv_heads)?,
            tensor(sizes.heads)?,
        ];
        let numbers = sizes.batch * sizes.heads * rows;
        let lse = stream.alloc_zeros(numbers).map_err(failed("allocating"))?;
        let workspace = Workspace::new(&stream);
        Ok(Buffers { sizes, positions: (0..rows).collect(), tensors, lse, workspace, room: None })
    }
}
