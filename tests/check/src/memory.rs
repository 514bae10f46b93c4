//! Tensors as a kernel would find them in memory: strided, guarded, with poison between.

use std::ops::Range;

use fulgurite::{Dtype, Layout};

use reference::tensor::Tensor;

/// What every unit of 16 bits holds that nobody wrote: a NaN of all types that no kernel makes.
pub const UNWRITTEN: u16 = 0xffff;

/// What every float32 number holds that nobody wrote: a NaN with every bit set.
pub const UNWRITTEN_F32: u32 = u32::MAX;

/// Elements of a type in one unit of an allocation, 16 bits. Rows are whole units, and strides.
fn in_unit(dtype: Dtype) -> usize {
    2 / dtype.bytes().clamp(1, 2) as usize
}

/// A row's elements as units.
fn packed(dtype: Dtype, row: &[u16]) -> Vec<u16> {
    row.chunks(in_unit(dtype))
        .map(|unit| unit.iter().rev().fold(0, |packed, element| packed << 8 | element))
        .collect()
}

/// The elements of a row of units.
fn unpacked(dtype: Dtype, units: &[u16]) -> Vec<u16> {
    match in_unit(dtype) {
        1 => units.to_vec(),
        _ => units.iter().flat_map(|unit| [unit & 0xff, unit >> 8]).collect(),
    }
}

/// Units in front of and behind all tensors of an allocation; nothing may touch them.
pub const GUARD_ELEMENTS: usize = 2048;

/// How tensors lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// `[batch, row, head, head dim]`, contiguous.
    Bshd,
    /// `[batch, head, row, head dim]`, contiguous.
    Bhsd,
    /// `[row, batch, head, head dim]`, contiguous.
    Sbhd,
    /// Tensors that are read as slices of one `[batch, row, heads of all, head dim]`.
    Packed,
    /// 16 bytes into rows that are 48 bytes wider than the head dim.
    SlicedHeadDim,
    /// `[batch, head, row, head dim]` with room after every row, head and batch entry.
    Padded,
    /// `[batch, row, head, head dim]` with a batch stride of more than 2³¹ elements.
    HugeBatchStride,
    /// `[batch, row, head, head dim]`; of what is read, all but the first tensor have a batch
    /// stride of 0.
    Shared,
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

/// A tensor of a call, by the name that the call gives it.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// The name.
    pub name: &'static str,
    /// Where it lies.
    pub place: Place,
    /// Whether the call writes it; nothing else is in its allocation then.
    pub is_written: bool,
}

/// Float32 numbers of a call, contiguous, in an allocation of their own.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// The name that the call gives them.
    pub name: &'static str,
    /// Whether the call writes them; else it reads them.
    pub is_written: bool,
    /// The numbers, with [`GUARD_ELEMENTS`] in front and behind.
    pub guarded: Vec<f32>,
}

/// Everything that one launch reads and writes: device memory before it, and after it.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The allocations that hold tensors.
    pub allocations: Vec<Allocation>,
    /// The tensors.
    pub tensors: Vec<Placed>,
    /// Numbers beside them.
    pub numbers: Vec<Numbers>,
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
    /// Every row's first unit in the allocation, rows in the order (batch, head, row).
    pub fn row_starts(&self) -> impl Iterator<Item = usize> + '_ {
        let [batches, heads, rows, _] = self.layout.shape;
        let strides = self.layout.strides.map(|stride| stride / in_unit(self.layout.dtype));
        (0..batches * heads * rows).map(move |index| {
            let (batch, head, row) = (index / (heads * rows), index / rows % heads, index % rows);
            self.start + batch * strides[0] + head * strides[1] + row * strides[2]
        })
    }

    /// Copies a tensor to its place.
    fn write(&self, allocation: &mut Allocation, tensor: &Tensor) {
        let head_dim = self.layout.shape[3];
        for (start, row) in self.row_starts().zip(tensor.bits.chunks(head_dim)) {
            let units = packed(self.layout.dtype, row);
            allocation.range_mut(start..start + units.len()).copy_from_slice(&units);
        }
    }

    /// The tensor at this place.
    pub fn read(&self, allocation: &Allocation) -> Tensor {
        let (dtype, units) = (self.layout.dtype, self.layout.shape[3] / in_unit(self.layout.dtype));
        let rows = self.row_starts().map(|start| allocation.range(start..start + units));
        let bits = rows.flat_map(|row| unpacked(dtype, row)).collect();
        Tensor::from_bits(self.layout.dtype, self.layout.shape, bits)
    }
}

/// Layout of a tensor, and the first element's distance from the allocation's usable start.
fn arrange(arrangement: Arrangement, dtype: Dtype, shape: [usize; 4]) -> (Layout, usize) {
    let [batch, heads, rows, head_dim] = shape;
    let strided = |strides| Layout::strided(dtype, shape, strides);
    match arrangement {
        Arrangement::Bshd | Arrangement::Packed | Arrangement::Shared => {
            (Layout::bshd(dtype, batch, rows, heads, head_dim), 0)
        }
        Arrangement::Bhsd => (Layout::bhsd(dtype, batch, heads, rows, head_dim), 0),
        Arrangement::Sbhd => {
            (strided([heads * head_dim, head_dim, batch * heads * head_dim, 1]), 0)
        }
        Arrangement::SlicedHeadDim => {
            let wide = head_dim + 24 * in_unit(dtype);
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
    let span = layout.span_elements().expect("a case's sizes are small").div_ceil(in_unit(dtype));
    allocations.push(match arrangement {
        Arrangement::HugeBatchStride => Allocation::sparse(start, entry_elements(shape), shape[0]),
        _ => Allocation::whole(start + span + GUARD_ELEMENTS),
    });
    Place { allocation: allocations.len() - 1, start, layout }
}

/// Tensors of as many batch entries, rows and columns, as slices of the rows of one.
fn place_packed(
    allocations: &mut Vec<Allocation>,
    dtype: Dtype,
    shapes: &[[usize; 4]],
) -> Vec<Place> {
    let [batch, _, rows, head_dim] = shapes[0];
    let row = shapes.iter().map(|shape| shape[1] * head_dim).sum::<usize>();
    let allocation = allocations.len();
    let units = batch * rows * row / in_unit(dtype);
    allocations.push(Allocation::whole(units + 2 * GUARD_ELEMENTS));
    let mut start = GUARD_ELEMENTS;
    let place = |&shape: &[usize; 4]| {
        let heads = shape[1];
        assert_eq!(shape, [batch, heads, rows, head_dim], "packed tensors differ in heads alone");
        let layout = Layout::strided(dtype, shape, [rows * row, head_dim, row, 1]);
        let place = Place { allocation, start, layout };
        start += heads * head_dim / in_unit(dtype);
        place
    };
    shapes.iter().map(place).collect()
}

/// Tensors one after another in every batch entry, the entries far apart.
fn place_huge(
    allocations: &mut Vec<Allocation>,
    dtype: Dtype,
    shapes: &[[usize; 4]],
) -> Vec<Place> {
    let allocation = allocations.len();
    let all = shapes.iter().map(|&shape| entry_elements(shape)).sum();
    allocations.push(Allocation::sparse(GUARD_ELEMENTS, all, shapes[0][0]));
    let mut start = GUARD_ELEMENTS;
    let place = |&shape: &[usize; 4]| {
        let (layout, _) = arrange(Arrangement::HugeBatchStride, dtype, shape);
        let place = Place { allocation, start, layout };
        start += entry_elements(shape);
        place
    };
    shapes.iter().map(place).collect()
}

/// The first tensor alone; the others with one batch entry for all.
fn place_shared(
    allocations: &mut Vec<Allocation>,
    dtype: Dtype,
    shapes: &[[usize; 4]],
) -> Vec<Place> {
    let place = |(index, &shape): (usize, &[usize; 4])| {
        let [batch, heads, rows, head_dim] = shape;
        let held = [if index == 0 { batch } else { 1 }, heads, rows, head_dim];
        let mut place = place_alone(allocations, Arrangement::Shared, dtype, held);
        if index > 0 {
            place.layout.shape[0] = batch;
            place.layout.strides[0] = 0;
        }
        place
    };
    shapes.iter().enumerate().map(place).collect()
}

impl Memory {
    /// Lays out tensors of one element type that are read.
    pub fn add_read(&mut self, arrangement: Arrangement, tensors: &[(&'static str, &Tensor)]) {
        let dtype = tensors[0].1.layout.dtype;
        let shapes: Vec<[usize; 4]> = tensors.iter().map(|(_, it)| it.layout.shape).collect();
        let allocations = &mut self.allocations;
        let places = match arrangement {
            Arrangement::Packed => place_packed(allocations, dtype, &shapes),
            Arrangement::HugeBatchStride => place_huge(allocations, dtype, &shapes),
            Arrangement::Shared => place_shared(allocations, dtype, &shapes),
            alone => {
                let one = |&shape| place_alone(allocations, alone, dtype, shape);
                shapes.iter().map(one).collect()
            }
        };
        for (place, &(name, tensor)) in places.into_iter().zip(tensors) {
            place.write(&mut self.allocations[place.allocation], tensor);
            self.tensors.push(Placed { name, place, is_written: false });
        }
    }

    /// Lays out a tensor that is written.
    pub fn add_written(
        &mut self,
        arrangement: Arrangement,
        name: &'static str,
        dtype: Dtype,
        shape: [usize; 4],
    ) {
        let place = place_alone(&mut self.allocations, arrangement, dtype, shape);
        self.tensors.push(Placed { name, place, is_written: true });
    }

    /// Lays out numbers that are written.
    pub fn add_numbers(&mut self, name: &'static str, count: usize) {
        let guarded = vec![f32::from_bits(UNWRITTEN_F32); count + 2 * GUARD_ELEMENTS];
        self.numbers.push(Numbers { name, is_written: true, guarded });
    }

    /// Lays out numbers that are read.
    pub fn add_given_numbers(&mut self, name: &'static str, values: &[f32]) {
        self.add_numbers(name, values.len());
        self.store_numbers(name, values);
        self.numbers.last_mut().expect("they were added").is_written = false;
    }

    /// The place of a tensor, which was laid out.
    pub fn place(&self, name: &str) -> Place {
        let found = self.tensors.iter().find(|tensor| tensor.name == name);
        found.unwrap_or_else(|| panic!("no tensor {name} was laid out")).place
    }

    /// A tensor as it lies in memory.
    pub fn tensor(&self, name: &str) -> Tensor {
        let place = self.place(name);
        place.read(&self.allocations[place.allocation])
    }

    /// Numbers without their guards; none if none of this name were laid out.
    pub fn numbers(&self, name: &str) -> Option<&[f32]> {
        self.numbers.iter().find(|numbers| numbers.name == name).map(Numbers::values)
    }

    /// The tensors that are written.
    pub fn written(&self) -> impl Iterator<Item = &Placed> {
        self.tensors.iter().filter(|tensor| tensor.is_written)
    }

    /// Whether an allocation is written.
    pub fn is_written(&self, allocation: usize) -> bool {
        self.written().any(|tensor| tensor.place.allocation == allocation)
    }

    /// All bits of what is written, guards included.
    pub fn written_bits(&self) -> (Vec<u16>, Vec<u32>) {
        let allocations = self.written().map(|it| &self.allocations[it.place.allocation]);
        let regions = allocations.flat_map(|allocation| &allocation.regions);
        let numbers = self.numbers.iter().filter(|numbers| numbers.is_written);
        let numbers = numbers.flat_map(|numbers| &numbers.guarded);
        (
            regions.flat_map(|region| region.bits.iter().copied()).collect(),
            numbers.map(|x| x.to_bits()).collect(),
        )
    }

    /// Writes a tensor's elements, rows in the order (batch, head, row), where a kernel would.
    pub fn store(&mut self, name: &str, bits: Vec<u16>) {
        let place = self.place(name);
        let tensor = Tensor::from_bits(place.layout.dtype, place.layout.shape, bits);
        place.write(&mut self.allocations[place.allocation], &tensor);
    }

    /// Writes numbers where a kernel would, if there is a place for them.
    pub fn store_numbers(&mut self, name: &str, values: &[f32]) {
        if let Some(numbers) = self.numbers.iter_mut().find(|numbers| numbers.name == name) {
            numbers.guarded[GUARD_ELEMENTS..GUARD_ELEMENTS + values.len()].copy_from_slice(values);
        }
    }

    /// Bytes of device memory that the launch needs.
    pub fn device_bytes(&self) -> usize {
        let elements: usize = self.allocations.iter().map(|allocation| allocation.len).sum();
        2 * elements + 4 * self.numbers.iter().map(|numbers| numbers.guarded.len()).sum::<usize>()
    }

    /// Whether all that had to be written was, and nothing else.
    ///
    /// # Errors
    /// The first thing that was written where nothing may be, or left unwritten.
    pub fn check_written(&self) -> Result<(), String> {
        self.written().try_for_each(|tensor| self.check_tensor(tensor))?;
        self.numbers.iter().filter(|numbers| numbers.is_written).try_for_each(Numbers::check)
    }

    fn check_tensor(&self, Placed { name, place, .. }: &Placed) -> Result<(), String> {
        let allocation = &self.allocations[place.allocation];
        let tensor = place.read(allocation);
        if let Some(index) = tensor.bits.iter().position(|&bits| bits == UNWRITTEN) {
            let place = place_name(&tensor.layout, index);
            return Err(format!("{name} was left unwritten at {place}"));
        }
        let written = allocation.regions.iter().flat_map(|region| &region.bits);
        let written = written.filter(|&&bits| bits != UNWRITTEN).count();
        if written != tensor.bits.len() {
            let extra = written - tensor.bits.len();
            return Err(format!("{extra} elements outside of {name} were written"));
        }
        Ok(())
    }
}

impl Numbers {
    /// The numbers without their guards.
    pub fn values(&self) -> &[f32] {
        &self.guarded[GUARD_ELEMENTS..self.guarded.len() - GUARD_ELEMENTS]
    }

    fn check(&self) -> Result<(), String> {
        let unwritten = |x: &f32| x.to_bits() == UNWRITTEN_F32;
        let (front, rest) = self.guarded.split_at(GUARD_ELEMENTS);
        let (values, back) = rest.split_at(rest.len() - GUARD_ELEMENTS);
        let name = self.name;
        if !front.iter().chain(back).all(unwritten) {
            return Err(format!("elements outside of {name} were written"));
        }
        if let Some(row) = values.iter().position(unwritten) {
            return Err(format!("{name} was left unwritten at row {row} (all heads counted)"));
        }
        Ok(())
    }
}

fn place_name(layout: &Layout, index: usize) -> String {
    let [_, heads, rows, head_dim] = layout.shape;
    let (row, column) = (index / head_dim, index % head_dim);
    let (batch, head) = (row / (heads * rows), row / rows % heads);
    format!("batch {batch}, head {head}, row {}, column {column}", row % rows)
}
