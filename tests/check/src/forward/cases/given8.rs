//! The cases of kernels that are given tensors of 8 bits: those of quantised ones, as far as they
//! make sense here, and numbers that the stored ones are multiplied with.

use fulgurite::internals::{MaskClass, Tile, Variant};
use fulgurite::{Descale, Dtype};
use reference::forward::values::{Poison, Values};

use super::ForwardCase;
use super::eight_bits::{self, Of};
use crate::case::Needs;

/// A number for each batch entry and KV head, contiguous.
fn per_head(case: &ForwardCase) -> Descale {
    Descale::PerHead { strides: [case.heads.1, 1] }
}

/// Every case of a kernel. The emulator has a list of its own.
pub fn cases(variant: &Variant) -> Vec<ForwardCase> {
    let mut all = Vec::new();
    for dtype in [Dtype::Bf16, Dtype::F16] {
        let of = Of { variant, dtype };
        let mut plain = eight_bits::lengths(of);
        plain.extend(eight_bits::layouts(of));
        plain.extend(eight_bits::head_dims(of));
        plain.extend(eight_bits::options(of));
        plain.extend(values(of));
        plain.extend(poisons(of));
        plain.extend(eight_bits::sizes(of));
        plain.iter_mut().for_each(|case| case.descale = [per_head(case); 3]);
        all.extend(plain);
        all.extend(descales(of));
    }
    for case in &mut all {
        case.needs = case.needs.max(Needs::Speed);
    }
    all
}

/// Each kind of descale, of each tensor alone and of all.
fn descales(of: Of) -> Vec<ForwardCase> {
    let case = |what, descale: [Descale; 3]| {
        of.of_batch(2, what, (8, 2), (70, 200)).with(|case| case.descale = descale)
    };
    let (one, tensor) = (Descale::One, Descale::PerTensor);
    let head = Descale::PerHead { strides: [2, 1] };
    let strided = Descale::PerHead { strides: [11, 3] };
    let (of_entry, of_head) =
        (Descale::PerHead { strides: [1, 0] }, Descale::PerHead { strides: [0, 1] });
    vec![
        case("descale none", [one; 3]),
        case("descale q alone", [head, one, one]),
        case("descale k alone", [one, head, one]),
        case("descale v alone", [one, one, head]),
        case("descale per tensor", [tensor; 3]),
        case("descale strided", [strided; 3]),
        case("descale per entry", [of_entry, of_head, of_entry]),
        case("descale rows of q", [Descale::PerRow, head, tensor]),
        case("descale rows of q alone", [Descale::PerRow, one, one]),
    ]
}

fn values(of: Of) -> Vec<ForwardCase> {
    let mut all = vec![
        // What a truncating accumulator loses grows with the sum.
        of.valued("means of k and v", Values::Biased, (200, 1150)),
        of.valued("v of mean 1, many keys", Values::MeanOne, (70, 4001)),
        of.valued("v all 1", Values::ConstantV(1.0), (129, 1150)),
        of.valued("q all 0", Values::ZeroQ, (129, 1150)),
    ];
    all.extend(eight_bits::peaks(of));
    all
}

/// A bad row of q stays alone, a bad key has the rows that see it, a bad value its column.
fn poisons(of: Of) -> Vec<ForwardCase> {
    let case = |what, poison| {
        of.of_batch(2, what, (4, 2), (200, 513)).with(|case| case.poison = Some(poison))
    };
    let mut all = vec![case("nan in q", Poison::QueryNan), case("nan in v", Poison::ValueNan(1))];
    if of.variant.mask == MaskClass::Causal {
        all.push(case("nan in k", Poison::KeyNan));
    }
    all
}

/// A sample for the emulator, of one type for each mask: enough keys that the output is parked, and
/// each kind of descale.
pub fn emulated_cases(variant: &Variant) -> Vec<ForwardCase> {
    let dtype = if variant.mask == MaskClass::Causal { Dtype::F16 } else { Dtype::Bf16 };
    let of = Of { variant, dtype };
    let (q_rows, kv_rows) = (Tile::of(variant).q_rows() as usize, variant.kv_rows as usize);
    let mut all = vec![of.of_batch(2, "parked, descale", (2, 1), (17, 597)).with(|case| {
        case.values = Values::MeanOne;
        case.descale = [Descale::PerRow, per_head(case), per_head(case)];
    })];
    if variant.head_dim == 64 {
        all.extend([
            of.case("one row", (1, 1), (1, 1)),
            of.case("more queries than keys", (1, 1), (q_rows + 70, 40)),
            of.case("moving anchors", (1, 1), (65, 6 * kv_rows - 3))
                .with(|case| case.values = Values::Sinks(25.0)),
            of.case("lost rows", (1, 1), (65, 6 * kv_rows - 3))
                .with(|case| case.values = Values::Sinks(130.0)),
            of.case("nan in v", (1, 1), (17, 129))
                .with(|case| case.poison = Some(Poison::ValueNan(1))),
            of.of_batch(2, "head dim, descale per tensor", (4, 2), (17, 129)).with(|case| {
                case.head_dim = 48;
                case.descale = [Descale::PerTensor, per_head(case), Descale::PerTensor];
                case.lse = false;
            }),
        ]);
    }
    all
}
