//! `fulgurite_layout`, and what the header's numbers stand for.

use fulgurite::{Arch, Dtype, Form, Mask, Precision};

use crate::outcome::Failure;

/// The header's numbers of one kind, from 1 on, with their names: 0 is a field that was not set.
pub(crate) type Numbers<T> = [(&'static str, T)];

/// Element types.
pub(crate) const DTYPES: &Numbers<Dtype> = &[
    ("FULGURITE_BF16", Dtype::Bf16),
    ("FULGURITE_F16", Dtype::F16),
    ("FULGURITE_F32", Dtype::F32),
    ("FULGURITE_E4M3", Dtype::E4m3),
    ("FULGURITE_E5M2", Dtype::E5m2),
    ("FULGURITE_U8", Dtype::U8),
    ("FULGURITE_I8", Dtype::I8),
    ("FULGURITE_I32", Dtype::I32),
    ("FULGURITE_I64", Dtype::I64),
];

/// Forms, as yet without the number of sequences.
pub(crate) const FORMS: &Numbers<Form> = &[
    ("FULGURITE_BATCHED", Form::Batched),
    ("FULGURITE_PACKED", Form::Packed { sequences: 0 }),
    ("FULGURITE_PAGED", Form::Paged),
];

/// Masks.
pub(crate) const MASKS: &Numbers<Mask> = &[
    ("FULGURITE_MASK_FULL", Mask::Full),
    ("FULGURITE_MASK_CAUSAL", Mask::Causal),
    ("FULGURITE_MASK_WINDOW", Mask::Window { left: None, right: None }),
];

/// Bits of the ends that a window has; their numbers are the ends' own.
pub(crate) const WINDOW_ENDS: [(&str, u32); 2] =
    [("FULGURITE_WINDOW_LEFT", 1), ("FULGURITE_WINDOW_RIGHT", 2)];

/// Precisions.
pub(crate) const PRECISIONS: &Numbers<Precision> = &[
    ("FULGURITE_PRECISION_GIVEN", Precision::Given),
    ("FULGURITE_PRECISION_S8E4M3", Precision::S8E4m3),
    ("FULGURITE_PRECISION_S8X16", Precision::S8x16),
    ("FULGURITE_PRECISION_BITS8", Precision::Bits8),
];

/// Architectures.
pub(crate) const ARCHS: &Numbers<Arch> =
    &[("FULGURITE_SM90", Arch::Sm90), ("FULGURITE_SM80", Arch::Sm80)];

/// `fulgurite_layout` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Element type: one of `FULGURITE_BF16` and so on.
    pub dtype: u32,
    /// What the first axis counts: one of `FULGURITE_BATCHED` and so on.
    pub form: u32,
    /// Sequences, if packed; else 0.
    pub sequences: u64,
    /// Batch, heads, rows, head_dim.
    pub shape: [u64; 4],
    /// Strides in elements, in the order of `shape`.
    pub strides: [u64; 4],
}

impl Layout {
    /// The layout in the words of the host crate; `field` is where it stands.
    pub(crate) fn meaning(&self, field: &str) -> Result<fulgurite::Layout, Failure> {
        let dtype = choose(&format!("{field}.dtype"), self.dtype, DTYPES)?;
        let form = choose(&format!("{field}.form"), self.form, FORMS)?;
        let sequences = self.sequences;
        let form = match form {
            Form::Packed { .. } => Form::Packed { sequences: size(sequences)? },
            _ if sequences == 0 => form,
            _ => {
                return Err(Failure::argument(format!(
                    "{field}.sequences is {sequences}, but {field}.form is not FULGURITE_PACKED: \
                     set it to 0"
                )));
            }
        };
        let mut layout =
            fulgurite::Layout::strided(dtype, sizes(self.shape)?, sizes(self.strides)?);
        layout.form = form;
        Ok(layout)
    }
}

/// What a number of the header stands for.
pub(crate) fn choose<T: Copy>(field: &str, got: u32, numbers: &Numbers<T>) -> Result<T, Failure> {
    let place = (got as usize).checked_sub(1);
    place.and_then(|place| numbers.get(place)).map(|number| number.1).ok_or_else(|| {
        let named = |(place, (name, _)): (usize, &(&str, T))| format!("{} ({name})", place + 1);
        let named: Vec<String> = numbers.iter().enumerate().map(named).collect();
        let unset = if got == 0 { " (not set)" } else { "" };
        let allowed = named.join(", ");
        Failure::argument(format!("{field} is {got}{unset}: it must be one of {allowed}"))
    })
}

/// The number that the header has for something.
pub(crate) fn number<T: PartialEq>(numbers: &Numbers<T>, of: &T) -> Option<u32> {
    let place = numbers.iter().position(|(_, meaning)| meaning == of)?;
    u32::try_from(place + 1).ok()
}

/// What a yes or no of the header stands for.
pub(crate) fn flag(field: &str, got: u32) -> Result<bool, Failure> {
    match got {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Failure::argument(format!("{field} is {got}: it must be 0 (no) or 1 (yes)"))),
    }
}

fn sizes(all: [u64; 4]) -> Result<[usize; 4], Failure> {
    let mut sizes = [0; 4];
    for (place, got) in sizes.iter_mut().zip(all) {
        *place = size(got)?;
    }
    Ok(sizes)
}

pub(crate) fn size(got: u64) -> Result<usize, Failure> {
    usize::try_from(got).map_err(|_| {
        Failure::argument(format!("the size or stride {got} does not fit this machine"))
    })
}
