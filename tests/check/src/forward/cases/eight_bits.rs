//! The cases of kernels of 8 bits: lengths that leave padding of every kind, heads whose scales
//! differ, values that integers and short floats trip over.

use fulgurite::Dtype;
use fulgurite::internals::{MaskClass, Variant};
use reference::forward::values::{Poison, Values};

use super::{ForwardCase, given8};
use crate::case::Needs;
use crate::memory::Arrangement;

/// What a list is of: a kernel, and the type of the tensors that it is given.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) variant: &'a Variant,
    pub(super) dtype: Dtype,
}

impl Of<'_> {
    /// A case of one batch entry; its name begins with the type.
    pub(super) fn case(
        self,
        what: &str,
        heads: (usize, usize),
        lengths: (usize, usize),
    ) -> ForwardCase {
        self.of_batch(1, what, heads, lengths)
    }

    /// A case of two heads that hold these values.
    pub(super) fn valued(self, what: &str, values: Values, lengths: (usize, usize)) -> ForwardCase {
        self.case(what, (2, 2), lengths).with(|case| case.values = values)
    }

    pub(super) fn of_batch(
        self,
        batch: usize,
        what: &str,
        heads: (usize, usize),
        lengths: (usize, usize),
    ) -> ForwardCase {
        let what = format!("{}: {what}", self.dtype.name());
        let case = ForwardCase::new(&what, self.variant, batch, heads, lengths);
        ForwardCase { dtype: self.dtype, ..case }
    }
}

/// Types of the tensors that a kernel of 8 bits is given.
fn types(variant: &Variant) -> Vec<Dtype> {
    match variant.dtype {
        Dtype::E4m3 => vec![Dtype::Bf16, Dtype::F16],
        own => vec![own],
    }
}

/// Every case of a kernel. The emulator has a list of its own.
pub fn cases(variant: &Variant) -> Vec<ForwardCase> {
    if variant.scores == Dtype::E4m3 {
        return given8::cases(variant);
    }
    let mut all = Vec::new();
    for dtype in types(variant) {
        let of = Of { variant, dtype };
        all.extend(lengths(of));
        all.extend(layouts(of));
        all.extend(head_dims(of));
        all.extend(options(of));
        all.extend(values(of));
        all.extend(poisons(of));
        all.extend(sizes(of));
    }
    for case in &mut all {
        case.needs = case.needs.max(Needs::Speed);
    }
    all
}

/// Around groups of 16 keys, tiles and the padding of transposed V; more queries than keys leave
/// causal rows without any.
pub(super) fn lengths(of: Of) -> Vec<ForwardCase> {
    const LENGTHS: &[(usize, usize)] = &[
        (1, 1),
        (1, 15),
        (15, 1),
        (15, 17),
        (17, 15),
        (127, 129),
        (129, 127),
        (129, 128),
        (200, 200),
        (1, 513),
        (200, 513),
        (513, 200),
        (513, 129),
        (513, 513),
    ];
    LENGTHS.iter().map(|&lengths| of.case("length", (2, 1), lengths)).collect()
}

pub(super) fn layouts(of: Of) -> Vec<ForwardCase> {
    let arranged = |what, batch, heads, lengths, arrangement| {
        of.of_batch(batch, what, heads, lengths).with(|case| case.arrangement = arrangement)
    };
    vec![
        // Each head with scales that no other head's data could have.
        of.of_batch(2, "unlike heads", (8, 2), (70, 200))
            .with(|case| case.values = Values::HeadSizes),
        of.of_batch(3, "odd heads", (5, 5), (17, 129)),
        arranged("packed qkv", 2, (3, 3), (129, 129), Arrangement::Packed),
        arranged("packed grouped qkv", 2, (4, 1), (127, 127), Arrangement::Packed),
        arranged("shared kv", 3, (4, 2), (70, 200), Arrangement::Shared),
        arranged("sbhd", 2, (3, 3), (70, 129), Arrangement::Sbhd),
        arranged("sliced head dim", 2, (2, 2), (129, 200), Arrangement::SlicedHeadDim),
        arranged("padded", 2, (2, 2), (129, 200), Arrangement::Padded),
    ]
}

/// Head dims that the kernel pads, each a multiple of 16.
pub(super) fn head_dims(of: Of) -> Vec<ForwardCase> {
    let dims: &[usize] = match of.variant.head_dim {
        64 => &[16, 48],
        96 => &[80],
        128 => &[112],
        192 => &[144, 176],
        256 => &[208],
        other => unreachable!("no head dims listed for a variant of {other}"),
    };
    let case = |&head_dim: &usize| {
        of.case("head dim", (2, 1), (127, 200)).with(|case| case.head_dim = head_dim)
    };
    dims.iter().map(case).collect()
}

pub(super) fn options(of: Of) -> Vec<ForwardCase> {
    let case =
        |what, lengths, change: fn(&mut ForwardCase)| of.case(what, (2, 2), lengths).with(change);
    vec![
        case("scale 0.5", (129, 200), |case| case.scale = Some(0.5)),
        case("scale 1e-4", (129, 200), |case| case.scale = Some(1e-4)),
        case("no lse", (129, 200), |case| case.lse = false),
        case("no lse, rows without keys", (513, 127), |case| case.lse = false),
    ]
}

fn values(of: Of) -> Vec<ForwardCase> {
    let mut all = vec![
        of.valued("means of k and v", Values::Biased, (200, 513)),
        of.valued("constant columns of v", Values::ConstantColumns, (129, 200)),
        of.valued("v all 1", Values::ConstantV(1.0), (129, 200)),
        of.valued("v all -2.5", Values::ConstantV(-2.5), (129, 333)),
        of.valued("q all 0", Values::ZeroQ, (129, 200)),
        of.valued("tiny", Values::Tiny, (129, 200)),
    ];
    all.extend(peaks(of));
    all
}

/// Values that every kernel of 8 bits may trip over, whoever made its tensors.
pub(super) fn peaks(of: Of) -> Vec<ForwardCase> {
    vec![
        of.valued("outliers", Values::Outliers, (200, 513)),
        of.valued("all 3", Values::Equal(3.0), (17, 200)),
        of.valued("all 0", Values::Equal(0.0), (17, 200)),
        of.valued("large logits", Values::LargeLogits, (200, 513)),
        of.valued("dominant key", Values::DominantKey, (200, 513)),
        // First and last met, within reach of an anchor and far beyond it.
        of.valued("sinks", Values::Sinks(25.0), (200, 1150)),
        of.valued("sinks past float32", Values::Sinks(130.0), (200, 1150)),
        of.valued("lone sink", Values::LoneSink(25.0), (200, 1150)),
        of.valued("lone start", Values::LoneStart(30.0), (200, 1150)),
    ]
}

/// A bad row of q stays alone, a bad key has its tile, a bad value its column.
fn poisons(of: Of) -> Vec<ForwardCase> {
    let case = |what, poison| {
        of.of_batch(2, what, (4, 2), (200, 513)).with(|case| case.poison = Some(poison))
    };
    let mut all = vec![case("nan in q", Poison::QueryNan), case("nan in v", Poison::ValueNan(1))];
    // Only a causal mask has rows that do not see a key.
    if of.variant.mask == MaskClass::Causal {
        all.push(case("nan in k", Poison::KeyNan));
        // The first rows do not see any key of its tile.
        all.push(
            of.case("nan in k", (2, 2), (513, 513)).with(|case| case.poison = Some(Poison::KeyNan)),
        );
    }
    all
}

/// One call for the statistics of the error, one that gives every block several jobs, one of many
/// keys.
pub(super) fn sizes(of: Of) -> Vec<ForwardCase> {
    vec![
        of.of_batch(2, "many rows", (8, 4), (512, 640)),
        of.of_batch(12, "many jobs", (16, 4), (260, 90)),
        of.case("long rows", (2, 1), (70, 4001)),
    ]
}

/// A sample for the emulator, of one type for each mask. Every kernel has a call that makes use of
/// padding, grouped heads and several tiles; those of head dim 64 have all else besides: keyless
/// rows, moving anchors, rows that are computed again, layouts.
pub fn emulated_cases(variant: &Variant) -> Vec<ForwardCase> {
    if variant.scores == Dtype::E4m3 {
        return given8::emulated_cases(variant);
    }
    let types = types(variant);
    let dtype = types[if variant.mask == MaskClass::Causal { types.len() - 1 } else { 0 }];
    let of = Of { variant, dtype };
    let (q_rows, kv_rows) =
        (fulgurite::internals::Tile::of(variant).q_rows() as usize, variant.kv_rows as usize);
    let mut all = vec![
        // Two whole tiles and a part of one, at least.
        of.case("partial tiles", (2, 1), (17, 337)).with(|case| case.values = Values::Biased),
    ];
    if variant.head_dim == 64 {
        all.extend([
            of.case("one row", (1, 1), (1, 1)),
            of.case("unlike heads", (4, 1), (17, kv_rows + 1))
                .with(|case| case.values = Values::HeadSizes),
            of.case("more queries than keys", (1, 1), (q_rows + 70, 40)),
            of.case("moving anchors", (1, 1), (65, 6 * kv_rows - 3))
                .with(|case| case.values = Values::Sinks(25.0)),
            of.case("lost rows", (1, 1), (65, 6 * kv_rows - 3))
                .with(|case| case.values = Values::Sinks(130.0)),
            of.case("nan in v", (1, 1), (17, 129))
                .with(|case| case.poison = Some(Poison::ValueNan(1))),
            of.of_batch(2, "shared kv, head dim", (2, 2), (17, 129)).with(|case| {
                case.head_dim = 48;
                case.arrangement = Arrangement::Shared;
                case.lse = false;
            }),
        ]);
    }
    all
}
