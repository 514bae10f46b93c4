//! The body on a CPU: plain loops in f32, for the tests of models.

use std::ops::Range;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Error, Layout, Result, Shape, Storage, Tensor};
use fulgurite::{DeviceFacts, Dtype, Mask, Plan};
use half::{bf16, f16};

use crate::op::{Attention, Given, library};

/// Products of a query's and a key's elements that a call on a CPU may need at most
/// (batch · heads · rows · keys · head_dim): larger calls are an error, because they belong on a
/// GPU.
pub const CPU_LIMIT: u64 = 1 << 26;

/// Attention of tensors in main memory: f32 inside, rounded once to the type of `q`.
pub(crate) fn forward(
    op: &Attention,
    tensors: [&CpuStorage; 3],
    layouts: [&Layout; 3],
) -> Result<(CpuStorage, Shape)> {
    let call = Call::check(op, tensors, layouts)?;
    let q = read("q", tensors[0], layouts[0])?;
    let k = read("k", tensors[1], layouts[1])?;
    let v = read("v", tensors[2], layouts[2])?;
    let (out, lse) = call.compute(&q, &k, &v);
    if op.wants_lse() {
        op.keep_lse(Storage::Cpu(CpuStorage::F32(lse)), [call.batch, call.heads, call.rows]);
    }
    let out = match tensors[0].dtype() {
        DType::BF16 => CpuStorage::BF16(out.into_iter().map(bf16::from_f32).collect()),
        DType::F16 => CpuStorage::F16(out.into_iter().map(f16::from_f32).collect()),
        _ => CpuStorage::F32(out),
    };
    Ok((out, layouts[0].shape().clone()))
}

/// What is computed, checked.
struct Call {
    scale: f32,
    mask: Mask,
    batch: usize,
    heads: usize,
    kv_heads: usize,
    rows: usize,
    keys: usize,
    head_dim: usize,
}

impl Call {
    /// Checks a call as it would be on a GPU, but that f32 is taken, and that it is small.
    fn check(op: &Attention, tensors: [&CpuStorage; 3], layouts: [&Layout; 3]) -> Result<Call> {
        let types = tensors.map(CpuStorage::dtype);
        let [Some(q), Some(k), Some(v)] = types.map(dtype) else {
            candle_core::bail!(
                "fulgurite_candle: q, k and v are {types:?}, on a CPU they have to be BF16, F16 or \
                 F32; convert them"
            );
        };
        if types.contains(&DType::F32) && types != [DType::F32; 3] {
            candle_core::bail!(
                "fulgurite_candle: q, k and v are {types:?}, they have to be of one type; convert \
                 them"
            );
        }
        let request = op.request(layouts, [q, k, v])?;
        Plan::new(&request, &DeviceFacts::h200()).map_err(library)?;
        let [batch, heads, rows, head_dim] = request.q.shape;
        let [_, kv_heads, keys, _] = request.k.shape;
        let products =
            [batch, heads, rows, keys, head_dim].iter().map(|&size| size as u128).product::<u128>();
        if products > u128::from(CPU_LIMIT) {
            candle_core::bail!(
                "fulgurite_candle: a call of {products} products (batch {batch}, heads {heads}, \
                 rows {rows}, keys {keys}, head_dim {head_dim}) is too large for a CPU, where \
                 calls of {CPU_LIMIT} at most serve tests; move the tensors to a GPU"
            );
        }
        Ok(Call {
            scale: op.scale(),
            mask: op.mask(),
            batch,
            heads,
            kv_heads,
            rows,
            keys,
            head_dim,
        })
    }

    /// The output, (batch, rows, heads, head_dim), and the log-sum-exp, (batch, heads, rows), of
    /// tensors without gaps.
    fn compute(&self, q: &[f32], k: &[f32], v: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let Call { batch, heads, rows, head_dim, .. } = *self;
        let mut out = vec![0.0; q.len()];
        let mut lse = Vec::with_capacity(batch * heads * rows);
        for (entry, head, row) in places(batch, heads, rows) {
            let start = ((entry * rows + row) * heads + head) * head_dim;
            let place = start..start + head_dim;
            lse.push(self.row(&q[place.clone()], [k, v], [entry, head, row], &mut out[place]));
        }
        (out, lse)
    }

    /// One row of the output, which is 0 before; its log-sum-exp is returned.
    fn row(
        &self,
        q: &[f32],
        [k, v]: [&[f32]; 2],
        [entry, head, row]: [usize; 3],
        out: &mut [f32],
    ) -> f32 {
        let kv_head = head / (self.heads / self.kv_heads);
        let at = |tensor, key| {
            let start = ((entry * self.keys + key) * self.kv_heads + kv_head) * self.head_dim;
            <[f32]>::get(tensor, start..start + self.head_dim).unwrap_or_default()
        };
        let keys = seen(self.mask, row, [self.rows, self.keys]);
        let product = |key| at(k, key).iter().zip(q).map(|(k, q)| k * q).sum::<f32>();
        let scores = keys.clone().map(|key| self.scale * product(key)).collect::<Vec<f32>>();
        let Some(largest) = scores.iter().copied().reduce(f32::max) else {
            return f32::NEG_INFINITY;
        };
        let mut sum = 0.0;
        for (key, score) in keys.zip(&scores) {
            let weight = (score - largest).exp();
            sum += weight;
            out.iter_mut().zip(at(v, key)).for_each(|(out, v)| *out += weight * v);
        }
        out.iter_mut().for_each(|out| *out /= sum);
        largest + sum.ln()
    }
}

/// The keys that a row sees, one run of them.
fn seen(mask: Mask, row: usize, [rows, keys]: [usize; 2]) -> Range<usize> {
    let sees = |key: &usize| mask.sees(row as i64, *key as i64, rows as i64, keys as i64);
    let first = (0..keys).find(sees).unwrap_or(keys);
    let count = (first..keys).take_while(sees).count();
    first..first + count
}

/// Gradients of q, k and v in f32, rounded once to their type; contiguous.
pub(crate) fn backward(op: &Attention, given: &Given<'_>) -> Result<[Tensor; 3]> {
    let (batch, rows, heads, head_dim) = given.q.dims4()?;
    let (_, keys, kv_heads, _) = given.k.dims4()?;
    if given.q.elem_count() == 0 || given.k.elem_count() == 0 {
        return Ok([given.q.zeros_like()?, given.k.zeros_like()?, given.v.zeros_like()?]);
    }
    // (batch, heads, rows, head_dim), keys and values once for each query head.
    let by_head = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.transpose(1, 2)?.contiguous();
    let grouped = |tensor: &Tensor| {
        let shape = (batch, kv_heads, heads / kv_heads, keys, head_dim);
        by_head(tensor)?.unsqueeze(2)?.expand(shape)?.reshape((batch, heads, keys, head_dim))
    };
    let (q, out, d_out) = (by_head(given.q)?, by_head(given.out)?, by_head(given.d_out)?);
    let (k, v) = (grouped(given.k)?, grouped(given.v)?);
    let scale = f64::from(op.scale());
    let sees = (0..rows).flat_map(|row| {
        let seen = seen(op.mask(), row, [rows, keys]);
        (0..keys).map(move |key| u8::from(seen.contains(&key)))
    });
    let sees = Tensor::from_vec(sees.collect::<Vec<u8>>(), (rows, keys), q.device())?;
    let sees = sees.broadcast_as((batch, heads, rows, keys))?;
    let scores = (q.matmul(&k.t()?)? * scale)?.broadcast_sub(&given.lse.unsqueeze(3)?)?;
    let weights = sees.where_cond(&scores.exp()?, &scores.zeros_like()?)?;
    let delta = (&d_out * &out)?.sum_keepdim(3)?;
    let of_scores = (&weights * d_out.matmul(&v.t()?)?.broadcast_sub(&delta)?)?;
    let of_scores = (of_scores * scale)?;
    let dq = of_scores.matmul(&k)?;
    let summed = |of_heads: Tensor| {
        of_heads.reshape((batch, kv_heads, heads / kv_heads, keys, head_dim))?.sum(2)
    };
    let dk = summed(of_scores.transpose(2, 3)?.contiguous()?.matmul(&q)?)?;
    let dv = summed(weights.transpose(2, 3)?.contiguous()?.matmul(&d_out)?)?;
    let stored = |tensor: Tensor| {
        tensor.transpose(1, 2)?.contiguous()?.to_dtype(given.q.dtype()).map(|it| it.detach())
    };
    Ok([stored(dq)?, stored(dk)?, stored(dv)?])
}

/// Every entry, head and row, in this order.
fn places(batch: usize, heads: usize, rows: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..batch * heads * rows).map(move |i| (i / rows / heads, i / rows % heads, i % rows))
}

/// The type that shapes are checked for: f32, which no kernel takes, is checked as bf16.
fn dtype(of: DType) -> Option<Dtype> {
    match of {
        DType::BF16 | DType::F32 => Some(Dtype::Bf16),
        DType::F16 => Some(Dtype::F16),
        _ => None,
    }
}

/// A tensor's elements in the order of its axes.
fn read(name: &str, storage: &CpuStorage, layout: &Layout) -> Result<Vec<f32>> {
    let elements = match storage {
        CpuStorage::BF16(from) => gather(from, layout, bf16::to_f32),
        CpuStorage::F16(from) => gather(from, layout, f16::to_f32),
        CpuStorage::F32(from) => gather(from, layout, |it| it),
        _ => None,
    };
    elements
        .ok_or_else(|| Error::msg(format!("fulgurite_candle: {name} reaches beyond its memory")))
}

fn gather<T: Copy>(from: &[T], layout: &Layout, f32_of: fn(T) -> f32) -> Option<Vec<f32>> {
    let mut places = vec![layout.start_offset()];
    for (&size, &stride) in layout.dims().iter().zip(layout.stride()) {
        let along = |place| (0..size).map(move |index| place + index * stride);
        places = places.into_iter().flat_map(along).collect();
    }
    places.into_iter().map(|place| from.get(place).copied().map(f32_of)).collect()
}
