//! Masks for small sizes exhaustively, and for the longest.

use super::geometry::{Causal, Window};
use super::*;

/// What segments promise, against the elements.
fn check_segments<M: Geometry>(mask: M, rows: Range<u32>, kv_rows: u32, kv_len: u32) {
    let segments = mask.segments(rows.clone(), kv_rows);
    let Segments { begin, full_begin, full_end, anchored, end } = segments;
    assert!(begin < end);
    assert!(M::FIRST || (begin, full_begin) == (0, 0));
    assert!(M::ROWS_DIFFER || end - full_end <= 1);
    for row in rows {
        let keys = mask.keys(row);
        assert!(M::FIRST || keys.start == 0);
        // With every key that the row has been offered down to a tile it has seen one.
        assert!(keys.is_empty() || anchored <= begin || keys.end > anchored * kv_rows);
        for col in 0..kv_len.next_multiple_of(kv_rows) {
            let (kept, tile) = (keys.contains(&col), col / kv_rows);
            assert!(kept || !(full_begin..full_end).contains(&tile), "{segments:?}");
            assert!(!kept || (begin..end).contains(&tile), "{segments:?}");
        }
    }
}

/// Both ends, segments and keyless rows, against what the mask means, for small lengths.
fn check<M: Geometry>(ends: Ends) {
    for q_len in 1..20 {
        for kv_len in 0..20 {
            let mask = M::new(q_len, kv_len, ends);
            let mut before = 0..0;
            for row in 0..q_len {
                let keys = mask.keys(row);
                let of =
                    |col: u32| M::sees(row.into(), col.into(), q_len.into(), kv_len.into(), ends);
                assert!((0..kv_len).all(|col| keys.contains(&col) == of(col)), "{row}: {keys:?}");
                assert!(keys.end <= kv_len && before.start <= keys.start);
                assert!(before.end <= keys.end);
                before = keys;
            }
            let sees = |row: &u32| mask.keys(*row).end > 0;
            let keyless = (0..q_len).find(sees).unwrap_or(q_len);
            assert_eq!(mask.keyless_rows(q_len), keyless);
            for col in 0..kv_len + 3 {
                let row_that = |found: &dyn Fn(Range<u32>) -> bool| {
                    (0..q_len).find(|&row| found(mask.keys(row))).unwrap_or(q_len)
                };
                assert_eq!(mask.first_row(col, q_len), row_that(&|keys| keys.end > col));
                assert_eq!(mask.end_row(col, q_len), row_that(&|keys| keys.start > col));
            }
            for (q_rows, kv_rows) in [(1, 1), (4, 3), (3, 4), (8, 5)] {
                for start in (0..q_len).step_by(q_rows) {
                    let rows = start..(start + q_rows as u32).min(q_len);
                    check_segments(mask, rows, kv_rows, kv_len);
                }
            }
        }
    }
}

/// Windows of every kind: small, past all lengths, unbounded, before and behind the diagonal.
fn windows() -> impl Iterator<Item = Ends> {
    const NUMBERS: [i32; 10] = [i32::MIN, -21, -4, -1, 0, 1, 3, 7, 21, i32::MAX];
    let pairs = NUMBERS.into_iter().flat_map(|left| NUMBERS.map(|right| Ends { left, right }));
    pairs.filter(|ends| i64::from(ends.left) + i64::from(ends.right) >= 0)
}

fn check_windows<M: Geometry>() {
    for ends in windows() {
        check::<M>(ends);
    }
}

#[test]
fn every_class_keeps_what_it_means() {
    each_class!(check_windows);
}

#[test]
fn the_simplest_mask_shows_the_same_keys() {
    let mut classes = [0; 3];
    for Ends { left, right } in windows() {
        let end = |end| (end != i32::MAX).then_some(end);
        let mask = Mask::Window { left: end(left), right: end(right) };
        for (q_len, kv_len) in (1..12).flat_map(|q_len| (0..12).map(move |len| (q_len, len))) {
            let simplest = mask.simplest(q_len as usize, kv_len as usize);
            classes[simplest.class() as usize] += 1;
            let sees = |mask: Mask, row, col| mask.sees(row, col, q_len, kv_len);
            for (row, col) in (0..q_len).flat_map(|row| (0..kv_len).map(move |c| (row, c))) {
                assert_eq!(sees(simplest, row, col), sees(mask, row, col), "{mask:?}");
            }
        }
    }
    assert!(classes.iter().all(|&count| count > 50), "{classes:?}");
    let window = |left, right| Mask::Window { left, right };
    assert_eq!(window(Some(8), Some(4)).simplest(5, 9), Mask::Full);
    assert_eq!(window(Some(8), Some(0)).simplest(5, 9), Mask::Causal);
    assert_eq!(window(Some(7), Some(0)).simplest(5, 9).class(), MaskClass::Window);
    assert_eq!(window(None, None).simplest(5, 9), Mask::Full);
}

#[test]
fn windows_survive_the_longest_lengths() {
    let longest = i32::MAX as u32 - 511;
    for ends in windows() {
        let (left, right) = (i64::from(ends.left), i64::from(ends.right));
        for (q_len, kv_len) in [(1, longest), (longest, 1), (longest, longest)] {
            let mask = Window::new(q_len, kv_len, ends);
            for row in [0, q_len / 2, q_len - 1] {
                let position = i64::from(row) + i64::from(kv_len) - i64::from(q_len);
                let cut = |bound: i64| bound.clamp(0, kv_len.into()) as u32;
                assert_eq!(mask.keys(row), cut(position - left)..cut(position + right + 1));
            }
            for col in [0, kv_len / 2, kv_len - 1] {
                // The row that stands at this key.
                let row = i64::from(col) - i64::from(kv_len) + i64::from(q_len);
                let cut = |bound: i64| bound.clamp(0, q_len.into()) as u32;
                assert_eq!(mask.first_row(col, q_len), cut(row - right));
                assert_eq!(mask.end_row(col, q_len), cut(row + left + 1));
            }
        }
    }
}

#[test]
fn causal_survives_the_longest_lengths() {
    let longest = i32::MAX as u32 - 511;
    let mask = Causal::new(1, longest, Ends::NONE);
    assert_eq!(mask.keys(0).end, longest);
    assert_eq!(mask.keys(191).end, longest);
    assert_eq!(Causal::new(longest, 1, Ends::NONE).keys(longest - 1).end, 1);
    assert_eq!(Causal::new(longest, 1, Ends::NONE).keys(longest - 2).end, 0);
    assert_eq!(Causal::new(longest, 1, Ends::NONE).keyless_rows(longest), longest - 1);
    assert_eq!(mask.first_row(longest - 1, 1), 0);
    assert_eq!(mask.first_row(longest + 127, 1), 1);
    assert_eq!(Causal::new(longest, 1, Ends::NONE).first_row(0, longest), longest - 1);
}
