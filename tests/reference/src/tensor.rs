//! Tensors in host memory, as the bits a kernel would see.

use fulgurite::{Dtype, Layout};
use half::{bf16, f16};

use crate::e4m3;

/// The value of an element.
pub fn decode(dtype: Dtype, bits: u16) -> f32 {
    match dtype {
        Dtype::Bf16 => bf16::from_bits(bits).to_f32(),
        Dtype::F16 => f16::from_bits(bits).to_f32(),
        Dtype::E4m3 => e4m3::decode(bits as u8),
        _ => panic!("no reference for elements of {}", dtype.name()),
    }
}

/// The nearest element, ties to even.
pub fn encode(dtype: Dtype, value: f64) -> u16 {
    match dtype {
        Dtype::Bf16 => bf16::from_f64(value).to_bits(),
        Dtype::F16 => f16::from_f64(value).to_bits(),
        Dtype::E4m3 => u16::from(e4m3::encode(value as f32)),
        _ => panic!("no reference for elements of {}", dtype.name()),
    }
}

/// One row of a tensor (batch, head, row).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowId {
    /// Index of the batch entry.
    pub batch: usize,
    /// Index of the head.
    pub head: usize,
    /// Index of the row in its head.
    pub row: usize,
}

/// Borrowed elements.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// The bits of elements of 16 bits and less, of the layout's type.
    Bits(&'a [u16]),
    /// The numbers that elements of 8 bits stand for.
    Numbers(&'a [f32]),
}

/// A strided tensor (batch, head, row, head dim) over borrowed elements.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Shape and strides; the first element has index 0 in every axis.
    pub layout: &'a Layout,
    /// The elements.
    pub elements: Elements<'a>,
}

impl View<'_> {
    /// The elements of one row (batch, head, row).
    pub fn row(&self, index: [usize; 3]) -> impl Iterator<Item = f32> + '_ {
        let start: usize =
            index.iter().zip(self.layout.strides).map(|(i, stride)| i * stride).sum();
        let [.., head_dim] = self.layout.shape;
        (start..start + head_dim).map(|index| match self.elements {
            Elements::Bits(bits) => decode(self.layout.dtype, bits[index]),
            Elements::Numbers(numbers) => numbers[index],
        })
    }
}

/// A tensor of its own, contiguous as (batch, head, row, head dim).
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Shape, and the strides that follow from it.
    pub layout: Layout,
    /// The elements, row after row.
    pub bits: Vec<u16>,
}

impl Tensor {
    /// Rounds `values` (contiguous, as long as the shape says) to `dtype`.
    pub fn new(dtype: Dtype, shape: [usize; 4], values: impl Iterator<Item = f32>) -> Tensor {
        let bits: Vec<u16> = values.map(|value| encode(dtype, f64::from(value))).collect();
        Tensor::from_bits(dtype, shape, bits)
    }

    /// Takes elements that are contiguous in the order of `shape`.
    pub fn from_bits(dtype: Dtype, shape: [usize; 4], bits: Vec<u16>) -> Tensor {
        let [batch, heads, rows, head_dim] = shape;
        assert_eq!(bits.len(), shape.iter().product::<usize>(), "elements of a tensor {shape:?}");
        Tensor { layout: Layout::bhsd(dtype, batch, heads, rows, head_dim), bits }
    }

    /// The tensor as a view.
    pub fn view(&self) -> View<'_> {
        View { layout: &self.layout, elements: Elements::Bits(&self.bits) }
    }

    /// The place of a row's first element in `bits`.
    pub fn row_start(&self, index: [usize; 3]) -> usize {
        index.iter().zip(self.layout.strides).map(|(i, stride)| i * stride).sum()
    }

    /// The elements of one row, for writing.
    pub fn row_mut(&mut self, index: [usize; 3]) -> &mut [u16] {
        let start = self.row_start(index);
        let head_dim = self.layout.shape[3];
        &mut self.bits[start..start + head_dim]
    }
}
