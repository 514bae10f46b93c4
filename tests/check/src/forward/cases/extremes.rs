//! Cases at the edges of the types: large scores, climbs, long rows, and what other results must
//! not notice where rows have settled.

use fulgurite::Dtype;
use fulgurite::internals::{MaskClass, Tile, Variant};
use reference::forward::values::{Climb, Exact, Poison, Values, exact};

use super::ForwardCase;
use crate::case::Needs;

/// All of them.
pub fn extremes(variant: &Variant) -> Vec<ForwardCase> {
    let mut all = equal_values(variant);
    all.extend(scales(variant));
    all.extend(exact_scores(variant));
    all.extend(climbs(variant));
    all.extend(settled(variant));
    all.extend(long_rows(variant));
    all
}

/// A case of few heads that the emulator takes too, or not.
fn case(
    what: &str,
    variant: &Variant,
    lengths: (usize, usize),
    emulated: bool,
    change: impl FnOnce(&mut ForwardCase),
) -> ForwardCase {
    ForwardCase::new(what, variant, 1, (1, 1), lengths).with(|case| {
        change(case);
        case.needs = if emulated { Needs::Nothing } else { Needs::Speed };
    })
}

/// What some rows have that others must not notice.
pub fn poisons(variant: &Variant) -> Vec<ForwardCase> {
    let case = |what, poison, lengths| {
        ForwardCase::new(what, variant, 2, (4, 2), lengths).with(|case| case.poison = Some(poison))
    };
    let mut all = vec![
        case("nan in q", Poison::QueryNan, (200, 250)),
        case("inf in q", Poison::QueryInf, (200, 250)),
    ];
    // The full mask has no rows that do not see a key.
    if variant.mask != MaskClass::Full {
        all.push(case("nan in k", Poison::KeyNan, (250, 250)));
        all.push(case("inf in k", Poison::KeyInf, (250, 250)));
    }
    all
}

/// q, k and v all the same: the output is that number, however large scores are.
fn equal_values(variant: &Variant) -> Vec<ForwardCase> {
    let values: &[f32] = match variant.dtype {
        Dtype::Bf16 => &[1000.5, 3e4, 133_120.0, 1.3e7, 1e9],
        // Short numbers but for the last: sums of their products are exact.
        Dtype::F16 => &[1000.0, 29_952.0, 65_504.0],
        other => panic!("no kernel has elements of {}", other.name()),
    };
    let kv_rows = Tile::of(variant).kv_rows as usize;
    let mut all = Vec::new();
    for &value in values {
        for kv_len in [1, 2, 9, 3 * kv_rows - 1] {
            let what = format!("all {value:e}");
            let set = |case: &mut ForwardCase| case.values = Values::Equal(value);
            all.push(case(&what, variant, (3, kv_len), kv_len != 2, set));
        }
    }
    all
}

/// Scales of all sizes on normal data, and one row of q much larger than the others. The emulator
/// takes a sample: powers below, at and above what the rounding of scaled scores can bear.
fn scales(variant: &Variant) -> Vec<ForwardCase> {
    let mut all = Vec::new();
    for power in (0..=36).step_by(2) {
        let scale = 10f32.powi(power);
        let set = |case: &mut ForwardCase| case.scale = Some(scale);
        let emulated = matches!(power, 4 | 12 | 24);
        all.push(case(&format!("scale 1e{power}"), variant, (70, 300), emulated, set));
        let what = format!("scale 1e{power}, large row");
        all.push(case(&what, variant, (150, 300), matches!(power, 6 | 36), |case| {
            case.scale = Some(scale);
            case.poison = Some(Poison::RowHuge);
        }));
    }
    all
}

fn exact_scores(variant: &Variant) -> Vec<ForwardCase> {
    let exact = |what: &str, lengths, emulated, exact| {
        case(what, variant, lengths, emulated, |case| {
            case.values = Values::Exact(exact);
            case.scale = Some(exact::SCALE);
        })
    };
    let mut all = vec![
        exact("far, then near", (9, 7 * 128), true, Exact::FarThenNear),
        exact("near, then far", (9, 7 * 128), true, Exact::NearThenFar),
        exact("far climb", (9, 7 * 128), true, Exact::FarClimb),
    ];
    // The border of what is far is 2¹³.
    for top in [4096.0, 8191.0, 8193.0, -8193.0, 1_048_576.0] {
        for below in [0.5, 10.0] {
            let emulated = (top == 8191.0 || top == 8193.0) && below == 0.5;
            let what = format!("border {top}, others {below} lower");
            all.push(exact(&what, (3, 1025), emulated, Exact::Border { top, below }));
        }
    }
    for top in [0.0, 256.0, 4096.0, 8191.0, 65_536.0, 1_048_576.0] {
        let emulated = matches!(top, 8191.0 | 1_048_576.0);
        let what = format!("dominant at {top}");
        all.push(exact(&what, (70, 700), emulated, Exact::Dominant(top)));
    }
    all
}

/// Maxima that rise from tile to tile as fast as anchors bear without moving. For `f16` the longest
/// rise past its range.
fn climbs(variant: &Variant) -> Vec<ForwardCase> {
    let kv_rows = Tile::of(variant).kv_rows as usize;
    let mut all = Vec::new();
    for (tiles, ratio) in [2, 5, 12, 22].into_iter().flat_map(|t| [(t, 0.7), (t, 0.99)]) {
        for aligned in [false, true] {
            let climb = Climb { tiles, ratio, kv_rows, aligned };
            let longest = tiles == 22 && ratio > 0.9 && variant.softmax.keeps_anchors();
            let kind = if aligned { "aligned climb" } else { "climb" };
            let what = format!("{kind} of {tiles}, ratio {ratio}");
            all.push(case(&what, variant, (64, climb.kv_len()), longest, |case| {
                case.values = Values::Climb(climb);
                case.scale = Some(std::f32::consts::LN_2);
            }));
        }
    }
    all
}

/// Something planted in calls whose rows settle: more than 1100 keys, two and more jobs a block.
fn settled(variant: &Variant) -> Vec<ForwardCase> {
    let planted = |what: &str, poison| {
        ForwardCase::new(what, variant, 3, (4, 2), (200, 1150)).with(|case| {
            case.poison = Some(poison);
            case.needs = Needs::Gpu;
        })
    };
    let last_column = variant.head_dim as usize - 1;
    let mut all = vec![
        planted("settled, nan in q", Poison::RowNan),
        planted("settled, inf in q", Poison::RowInf),
        planted("settled, peak in q", Poison::RowPeak),
        planted("settled, nan in k", Poison::HeadNan),
        planted("settled, nan in v", Poison::ValueNan(0)),
        planted("settled, nan in the last column of v", Poison::ValueNan(last_column)),
        planted("lost rows, nan in v", Poison::ValueNan(0))
            .with(|case| case.values = Values::Sinks(130.0)),
        planted("lost rows, nan in column 1 of v", Poison::ValueNan(1))
            .with(|case| case.values = Values::Sinks(130.0)),
    ];
    all.push(
        planted("settled, nan in v, nan in q", Poison::RowNan)
            .with(|case| case.values = Values::NanValue),
    );
    // Small ones for the emulator, one way to lose rows for each type.
    let small = |what: &str, lengths, change: fn(&mut ForwardCase)| {
        ForwardCase::new(what, variant, 1, (2, 1), lengths).with(change)
    };
    all.push(match variant.dtype {
        Dtype::Bf16 => small("settled, small, nan in q", (130, 1150), |case| {
            case.poison = Some(Poison::RowNan);
        }),
        Dtype::F16 => small("settled, small, peak in q", (130, 1150), |case| {
            case.poison = Some(Poison::RowPeak);
        }),
        other => panic!("no kernel has elements of {}", other.name()),
    });
    if variant.softmax.keeps_anchors() {
        all.push(small("lost rows, small, nan in v", (70, 765), |case| {
            case.values = Values::Sinks(130.0);
            case.poison = Some(Poison::ValueNan(1));
        }));
        all.push(small("settled, small, nan in v, nan in q", (70, 1150), |case| {
            case.values = Values::NanValue;
            case.poison = Some(Poison::RowNan);
        }));
    }
    all
}

/// Rows of which a lost or repeated key, or a sum that drifts, would show nowhere else.
fn long_rows(variant: &Variant) -> Vec<ForwardCase> {
    let long = |what: &str, heads, lengths, needs, values| {
        ForwardCase::new(what, variant, 1, heads, lengths).with(|case| {
            case.values = values;
            case.needs = needs;
        })
    };
    // What truncation costs where values have a mean is judged where the kernel is preferred:
    // beyond, there are others, which park.
    let keys = (variant.kv_len_limit as usize).clamp(1 << 14, 30_001);
    vec![
        long("long rows", (1, 1), (70, 20_011), Needs::Speed, Values::Normal),
        long("long rows, more", (4, 2), (530, 24_000), Needs::Gpu, Values::Normal),
        long("long rows, v of mean 1", (2, 1), (130, keys), Needs::Gpu, Values::MeanOne),
    ]
}
