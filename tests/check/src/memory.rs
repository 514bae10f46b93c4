//! A case's tensors laid out as a kernel would find them: strided, guarded, with poison between.

use std::ops::Range;

use fulgurite::{Dtype, Forward, Layout, Variant};

use reference::tensor::Tensor;

/// What every 16-bit element holds that nobody wrote: a NaN of both types that no kernel makes.
pub const UNWRITTEN: u16 = 0xffff;

/// What every log-sum-exp holds before the launch: a NaN with every bit set.
pub const UNWRITTEN_LSE: u32 = u32::MAX;

/// Elements in front of and behind every allocation's tensors; nothing may touch them.
pub const GUARD_ELEMENTS: usize = 2048;

/// How the tensors of a case lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// `[batch, row, head, head dim]`, contiguous.
    Bshd,
    /// `[batch, head, row, head dim]`, contiguous.
    Bhsd,
    /// `[row, batch, head, head dim]`, contiguous.
    Sbhd,
    /// Q, K and V as slices of one `[batch, row, q heads + 2 * kv heads, head dim]`.
    PackedQkv,
    /// 8 columns into rows that are 24 wider than the head dim.
    SlicedHeadDim,
    /// `[batch, head, row, head dim]` with room after every row, head and batch entry.
    Padded,
    /// `[batch, row, head, head dim]` with a batch stride of more than 2³¹ elements.
    HugeBatchStride,
}

/// Elements from one batch entry to the next under [`Arrangement::HugeBatchStride`].
const HUGE_STRIDE_ELEMENTS: usize = (1 << 31) + 4096;

/// A piece of an allocation whose contents matter; the rest is never read nor copied.
#[derive(Clone, Debug)]
pub struct Region {
    /// First element of the piece.
    pub start: usize,
    /// Its contents.
    pub bits: Vec<u16>,
}

/// One allocation on the device.
#[derive(Clone, Debug)]
pub struct Allocation {
    /// Elements of the whole allocation.
    pub len: usize,
    /// The pieces that matter, in order.
    pub regions: Vec<Region>,
}

/// A tensor inside an allocation.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Index of the allocation.
    pub allocation: usize,
    /// The tensor's first element.
    pub start: usize,
    /// Shape and strides.
    pub layout: Layout,
}

/// Everything one launch reads and writes.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The call to plan.
    pub request: Forward,
    /// The kernel to plan it for; `None`: the plan chooses.
    pub variant: Option<Variant>,
    /// Device memory before the launch, the output's last; a backend leaves there what the output's
    /// holds after the launch.
    pub allocations: Vec<Allocation>,
    /// Queries.
    pub q: Place,
    /// Keys.
    pub k: Place,
    /// Values.
    pub v: Place,
    /// The output; nothing else is in its allocation.
    pub out: Place,
    /// Log-sum-exp with [`GUARD_ELEMENTS`] in front and behind, if it is wanted.
    pub lse: Option<Vec<f32>>,
}

impl Allocation {
    /// An allocation that is [`UNWRITTEN`] all over and matters all over.
    fn whole(len: usize) -> Allocation {
        Allocation::of(len, std::iter::once(0..len))
    }

    /// An allocation of which only the batch entries, far apart, and guards around them matter.
    fn sparse(start: usize, entry_elements: usize, batches: usize) -> Allocation {
        let entry = |batch: usize| {
            let first = start + batch * HUGE_STRIDE_ELEMENTS;
            first - GUARD_ELEMENTS..first + entry_elements + GUARD_ELEMENTS
        };
        Allocation::of(entry(batches - 1).end, (0..batches).map(entry))
    }

    fn of(len: usize, ranges: impl Iterator<Item = Range<usize>>) -> Allocation {
        let regions =
            ranges.map(|range| Region { start: range.start, bits: vec![UNWRITTEN; range.len()] });
        Allocation { len, regions: regions.collect() }
    }

    /// The elements of a range, which lies inside one region.
    pub fn range(&self, range: Range<usize>) -> &[u16] {
        let region = self.region_of(range.start);
        let region = &self.regions[region];
        &region.bits[range.start - region.start..range.end - region.start]
    }

    /// The elements of a range, for writing.
    pub fn range_mut(&mut self, range: Range<usize>) -> &mut [u16] {
        let region = self.region_of(range.start);
        let region = &mut self.regions[region];
        &mut region.bits[range.start - region.start..range.end - region.start]
    }

    fn region_of(&self, element: usize) -> usize {
        self.regions.partition_point(|region| region.start <= element) - 1
    }
}

impl Place {
    /// Every row's first element in the allocation, rows in the order (batch, head, row).
    pub fn row_starts(&self) -> impl Iterator<Item = usize> + '_ {
        let ([batches, heads, rows, _], strides) = (self.layout.shape, self.layout.strides);
        (0..batches * heads * rows).map(move |index| {
            let (batch, head, row) = (index / (heads * rows), index / rows % heads, index % rows);
            self.start + batch * strides[0] + head * strides[1] + row * strides[2]
        })
    }

    /// Copies a tensor to its place.
    fn write(&self, allocation: &mut Allocation, tensor: &Tensor) {
        let head_dim = self.layout.shape[3];
        for (start, row) in self.row_starts().zip(tensor.bits.chunks(head_dim)) {
            allocation.range_mut(start..start + head_dim).copy_from_slice(row);
        }
    }

    /// The tensor at this place.
    pub fn read(&self, allocation: &Allocation) -> Tensor {
        let head_dim = self.layout.shape[3];
        let rows = self.row_starts().map(|start| allocation.range(start..start + head_dim));
        let bits = rows.flatten().copied().collect();
        Tensor::from_bits(self.layout.dtype, self.layout.shape, bits)
    }
}

/// Layout of a tensor, and the first element's distance from the allocation's usable start.
fn arrange(arrangement: Arrangement, dtype: Dtype, shape: [usize; 4]) -> (Layout, usize) {
    let [batch, heads, rows, head_dim] = shape;
    let strided = |strides| Layout::strided(dtype, shape, strides);
    match arrangement {
        Arrangement::Bshd | Arrangement::PackedQkv => {
            (Layout::bshd(dtype, batch, rows, heads, head_dim), 0)
        }
        Arrangement::Bhsd => (Layout::bhsd(dtype, batch, heads, rows, head_dim), 0),
        Arrangement::Sbhd => {
            (strided([heads * head_dim, head_dim, batch * heads * head_dim, 1]), 0)
        }
        Arrangement::SlicedHeadDim => {
            let wide = head_dim + 24;
            (strided([rows * heads * wide, wide, heads * wide, 1]), 8)
        }
        Arrangement::Padded => {
            let (row, head) = (head_dim + 16, rows * (head_dim + 16) + 64);
            (strided([heads * head + 128, head, row, 1]), 0)
        }
        Arrangement::HugeBatchStride => {
            (strided([HUGE_STRIDE_ELEMENTS, head_dim, heads * head_dim, 1]), 0)
        }
    }
}

/// Elements of one batch entry of a shape.
fn entry_elements(shape: [usize; 4]) -> usize {
    shape[1..].iter().product()
}

/// Allocates a tensor alone and returns its place.
fn place_alone(
    allocations: &mut Vec<Allocation>,
    arrangement: Arrangement,
    dtype: Dtype,
    shape: [usize; 4],
) -> Place {
    let (layout, offset) = arrange(arrangement, dtype, shape);
    let start = GUARD_ELEMENTS + offset;
    let span = layout.span_elements().expect("a case's sizes are small");
    allocations.push(match arrangement {
        Arrangement::HugeBatchStride => Allocation::sparse(start, entry_elements(shape), shape[0]),
        _ => Allocation::whole(start + span + GUARD_ELEMENTS),
    });
    Place { allocation: allocations.len() - 1, start, layout }
}

/// Q, K and V as slices of the rows of one tensor.
fn place_packed(
    allocations: &mut Vec<Allocation>,
    dtype: Dtype,
    [q_shape, kv_shape]: [[usize; 4]; 2],
) -> [Place; 3] {
    let [batch, q_heads, rows, head_dim] = q_shape;
    assert_eq!(rows, kv_shape[2], "a packed qkv has as many queries as keys");
    let row = (q_heads + 2 * kv_shape[1]) * head_dim;
    let allocation = allocations.len();
    allocations.push(Allocation::whole(batch * rows * row + 2 * GUARD_ELEMENTS));
    let k_start = GUARD_ELEMENTS + q_heads * head_dim;
    let place = |start, [_, heads, ..]: [usize; 4]| Place {
        allocation,
        start,
        layout: Layout::strided(
            dtype,
            [batch, heads, rows, head_dim],
            [rows * row, head_dim, row, 1],
        ),
    };
    [
        place(GUARD_ELEMENTS, q_shape),
        place(k_start, kv_shape),
        place(k_start + kv_shape[1] * head_dim, kv_shape),
    ]
}

/// Q, K and V one after another in every batch entry, the entries far apart.
fn place_huge(
    allocations: &mut Vec<Allocation>,
    dtype: Dtype,
    [q_shape, kv_shape]: [[usize; 4]; 2],
) -> [Place; 3] {
    let (q_elements, kv_elements) = (entry_elements(q_shape), entry_elements(kv_shape));
    let allocation = allocations.len();
    let all = q_elements + 2 * kv_elements;
    allocations.push(Allocation::sparse(GUARD_ELEMENTS, all, q_shape[0]));
    let place = |start, shape| {
        let (layout, _) = arrange(Arrangement::HugeBatchStride, dtype, shape);
        Place { allocation, start, layout }
    };
    let k_start = GUARD_ELEMENTS + q_elements;
    [
        place(GUARD_ELEMENTS, q_shape),
        place(k_start, kv_shape),
        place(k_start + kv_elements, kv_shape),
    ]
}

/// What a [`Launch`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The kernel, if it is not the plan's choice.
    pub variant: Option<Variant>,
    /// How the tensors lie in memory.
    pub arrangement: Arrangement,
    /// Which keys a row sees.
    pub mask: fulgurite::Mask,
    /// Softmax scale, if not the default.
    pub scale: Option<f32>,
    /// Whether the log-sum-exp is wanted.
    pub lse: bool,
}

impl Launch {
    /// Lays out the inputs and a poisoned output.
    pub fn new(setting: Setting, q: &Tensor, k: &Tensor, v: &Tensor) -> Launch {
        let dtype = q.layout.dtype;
        let shapes = [q.layout.shape, k.layout.shape];
        let mut allocations = Vec::new();
        let [q_place, k_place, v_place] = match setting.arrangement {
            Arrangement::PackedQkv => place_packed(&mut allocations, dtype, shapes),
            Arrangement::HugeBatchStride => place_huge(&mut allocations, dtype, shapes),
            alone => [shapes[0], shapes[1], shapes[1]]
                .map(|shape| place_alone(&mut allocations, alone, dtype, shape)),
        };
        for (place, tensor) in [(&q_place, q), (&k_place, k), (&v_place, v)] {
            place.write(&mut allocations[place.allocation], tensor);
        }
        let out = place_alone(&mut allocations, setting.arrangement, dtype, shapes[0]);
        let [batch, heads, rows, _] = shapes[0];
        let lse_len = batch * heads * rows + 2 * GUARD_ELEMENTS;
        let request = Forward {
            q: q_place.layout,
            k: k_place.layout,
            v: v_place.layout,
            out: out.layout,
            mask: setting.mask,
            scale: setting.scale,
            lse: setting.lse,
        };
        let lse = setting.lse.then(|| vec![f32::from_bits(UNWRITTEN_LSE); lse_len]);
        let variant = setting.variant;
        Launch { request, variant, allocations, q: q_place, k: k_place, v: v_place, out, lse }
    }

    /// Q, K and V as they lie in memory.
    pub fn inputs(&self) -> [Tensor; 3] {
        [self.q, self.k, self.v].map(|place| place.read(&self.allocations[place.allocation]))
    }

    /// Writes an answer, rows in the order (batch, head, row), where a kernel would.
    pub fn store(&mut self, out: Vec<u16>, lse: &[f32]) {
        let layout = self.out.layout;
        let out = Tensor::from_bits(layout.dtype, layout.shape, out);
        self.out.write(&mut self.allocations[self.out.allocation], &out);
        if let Some(guarded) = &mut self.lse {
            guarded[GUARD_ELEMENTS..GUARD_ELEMENTS + lse.len()].copy_from_slice(lse);
        }
    }

    /// Bytes of device memory that the launch needs.
    pub fn device_bytes(&self) -> usize {
        let elements: usize = self.allocations.iter().map(|allocation| allocation.len).sum();
        2 * elements + 4 * self.lse.as_ref().map_or(0, Vec::len)
    }

    /// The output after a launch: the tensor and the log-sum-exp. An error names the first thing
    /// that was written where nothing may be, or left unwritten.
    pub fn results(&self) -> Result<(Tensor, Option<Vec<f32>>), String> {
        let allocation = &self.allocations[self.out.allocation];
        let out = self.out.read(allocation);
        if let Some(index) = out.bits.iter().position(|&bits| bits == UNWRITTEN) {
            return Err(format!("out was left unwritten at {}", place_name(&out.layout, index)));
        }
        let written = allocation.regions.iter().flat_map(|region| &region.bits);
        let written = written.filter(|&&bits| bits != UNWRITTEN).count();
        if written != out.bits.len() {
            let extra = written - out.bits.len();
            return Err(format!("{extra} elements outside of out were written"));
        }
        let Some(guarded) = &self.lse else {
            return Ok((out, None));
        };
        let unwritten = |x: &f32| x.to_bits() == UNWRITTEN_LSE;
        let (front, rest) = guarded.split_at(GUARD_ELEMENTS);
        let (lse, back) = rest.split_at(rest.len() - GUARD_ELEMENTS);
        if !front.iter().chain(back).all(unwritten) {
            return Err("elements outside of lse were written".to_owned());
        }
        if let Some(row) = lse.iter().position(unwritten) {
            return Err(format!("lse was left unwritten at row {row} (all heads counted)"));
        }
        Ok((out, Some(lse.to_vec())))
    }
}

fn place_name(layout: &Layout, index: usize) -> String {
    let [_, heads, rows, head_dim] = layout.shape;
    let (row, column) = (index / head_dim, index % head_dim);
    let (batch, head) = (row / (heads * rows), row / rows % heads);
    format!("batch {batch}, head {head}, row {}, column {column}", row % rows)
}
