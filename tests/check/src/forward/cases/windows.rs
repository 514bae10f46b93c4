//! Cases of sliding windows: small and large, on both sides, beside the diagonal.

use fulgurite::Mask;
use fulgurite::internals::{MaskClass, Tile, Variant};
use reference::forward::values::Values;

use super::ForwardCase;

/// More keys than any row of the cases has on one side.
const WIDE: i32 = 1 << 20;

/// A window's ends, the lengths of a call that it means something to.
type Window = (Option<i32>, Option<i32>, (usize, usize));

fn case(variant: &Variant, (left, right, lengths): Window) -> ForwardCase {
    let end = |end: Option<i32>| end.map_or("all".to_owned(), |end| end.to_string());
    let what = format!("window {} to {}", end(left), end(right));
    ForwardCase::new(&what, variant, 1, (2, 1), lengths)
        .with(|case| case.mask = Mask::Window { left, right })
}

/// Windows smaller and larger than a tile, that begin in any tile, and rows without keys at both
/// ends of a call.
pub fn windows(variant: &Variant) -> Vec<ForwardCase> {
    if variant.mask != MaskClass::Window {
        return Vec::new();
    }
    let tile = Tile::of(variant);
    let (q_rows, kv_rows) = (tile.q_rows() as usize, tile.kv_rows as usize);
    let tile_keys = kv_rows as i32;
    let ends = [
        (Some(0), Some(0)),
        (Some(tile_keys - 1), Some(0)),
        (Some(tile_keys), Some(0)),
        (Some(2 * tile_keys + 3), Some(0)),
        (Some(5 * tile_keys), Some(7)),
        (Some(9 * tile_keys - 1), Some(0)),
        (Some(3), Some(3 * tile_keys)),
        (Some(40), None),
        (None, Some(9)),
        (None, Some(-1)),
        // Rows at the end of the call see no key.
        (Some(-2), Some(40)),
        (Some(-200), Some(300)),
        (Some(-200), None),
        // Rows at its start see none.
        (Some(300), Some(-200)),
        (Some(i32::MAX), Some(-200)),
    ];
    let lengths = [
        (2 * q_rows + 70, 5 * kv_rows - 3),
        (3 * q_rows - 70, 12 * kv_rows),
        (700, 90),
        (90, 700),
        (1, 1000),
    ];
    let each = |(left, right)| lengths.map(|lengths| case(variant, (left, right, lengths)));
    let mut all: Vec<ForwardCase> = ends.into_iter().flat_map(each).collect();
    all.extend(valued(variant));
    all
}

/// The same for the emulator: each way in which segments of a job can lie.
pub fn emulated(variant: &Variant) -> Vec<ForwardCase> {
    if variant.mask != MaskClass::Window {
        return Vec::new();
    }
    let tile = Tile::of(variant);
    let (q_rows, kv_rows) = (tile.q_rows() as usize, tile.kv_rows as usize);
    let tile_keys = kv_rows as i32;
    let some = [
        // Behind tile 0, several jobs of a block.
        (Some(tile_keys - 1), Some(0), (3 * q_rows - 70, 3 * q_rows + 2 * kv_rows)),
        // Tiles that follow, keep, and end in the window.
        (Some(7 * tile_keys + 5), Some(3), (q_rows + 9, 11 * kv_rows - 3)),
        (Some(0), Some(2 * tile_keys), (q_rows - 5, 2 * q_rows + 4 * kv_rows)),
        (Some(-200), Some(300), (2 * q_rows + 70, 5 * kv_rows - 3)),
        // The last rows see no key, and the keys end with a tile.
        (Some(-70), Some(90), (2 * q_rows, 2 * kv_rows)),
        (Some(300), Some(-200), (2 * q_rows + 70, 5 * kv_rows)),
        (Some(40), None, (q_rows + 64, 3 * kv_rows)),
    ];
    let mut all: Vec<ForwardCase> = some.into_iter().map(|window| case(variant, window)).collect();
    all.extend(valued(variant));
    all
}

/// Anchors that move, and rows that are lost, in windows that begin behind tile 0.
fn valued(variant: &Variant) -> Vec<ForwardCase> {
    let tile = Tile::of(variant);
    let (q_rows, kv_rows) = (tile.q_rows() as usize, tile.kv_rows as usize);
    let mask = Mask::Window { left: Some(7 * tile.kv_rows as i32), right: Some(0) };
    let of = |what: &str, values| {
        let lengths = (q_rows + 9, 10 * kv_rows);
        let case = ForwardCase::new(what, variant, 1, (2, 1), lengths);
        ForwardCase { mask, values, ..case }
    };
    vec![
        of("window, large logits", Values::LargeLogits),
        of("window, outliers", Values::Outliers),
        of("window, far", Values::Equal(29_952.0)),
    ]
}

/// A window that keeps every key, for cases whose values say what must come of all of them.
pub fn wide(case: ForwardCase) -> ForwardCase {
    match case.mask {
        Mask::Window { .. } => {
            ForwardCase { mask: Mask::Window { left: Some(WIDE), right: Some(WIDE) }, ..case }
        }
        _ => case,
    }
}

/// The same where values are not plainly normal.
pub fn wide_if_valued(case: ForwardCase) -> ForwardCase {
    if case.values == Values::Normal { case } else { wide(case) }
}
