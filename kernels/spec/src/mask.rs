//! Masks: which keys a row sees, which KV tiles a query tile visits, and which elements of them
//! count. Pure, and the one place for it: kernels, the order of jobs, and what tests expect of both
//! derive from here.
//!
//! A mask is a type in [`geometry`] and a line in `classes!`.

use core::ops::Range;

/// The KV tiles of one query tile: `begin..end` are visited, from the last to the first. Of them
/// those in `full_begin..full_end` need no element tests. In `begin..anchored` every row that sees
/// keys behind them has seen one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// First tile to visit.
    pub begin: u32,
    /// First tile without element tests; 0 for masks that keep a prefix.
    pub full_begin: u32,
    /// First tile behind these; where it is not above `full_begin`, every tile needs tests.
    pub full_end: u32,
    /// First tile from which on some row may have no key yet.
    pub anchored: u32,
    /// End of the tiles to visit, above `begin`: a query tile without keys has one tile, all of it
    /// masked.
    pub end: u32,
}

/// A mask whose rows see one run of keys each.
pub trait Geometry: Copy {
    /// Whether rows see different keys, so that a query tile can have more than one KV tile that
    /// needs element tests, and some of its rows may need fewer tiles than others. Where not, the
    /// kernel has no code for either.
    const ROWS_DIFFER: bool;

    /// Whether a row may see keys without seeing those before them. Where not, rows see a prefix of
    /// the keys, and all that has to do with their first key is 0 at compile time.
    const FIRST: bool;

    /// The mask for these lengths, both at most 2³¹ - 512.
    fn new(q_len: u32, kv_len: u32) -> Self;

    /// Whether row `row` sees key `col`: what the mask means, in the plainest words, for positions
    /// inside of these lengths. Tests and references compare with it.
    fn sees(row: i64, col: i64, q_len: i64, kv_len: i64) -> bool;

    /// Keys that query row `row` sees. Neither end ever decreases from row to row, also where there
    /// are no keys; rows at or past `q_len` are padding and may see any keys.
    fn keys(self, row: u32) -> Range<u32>;

    /// The KV tiles, of `kv_rows` keys each, for the query rows `rows` (not empty).
    #[inline(always)]
    fn segments(self, rows: Range<u32>, kv_rows: u32) -> Segments {
        let first = self.keys(rows.start);
        let last = self.keys(rows.end - 1);
        let (begin, full_begin) = if Self::FIRST {
            (first.start / kv_rows, last.start.div_ceil(kv_rows))
        } else {
            (0, 0)
        };
        Segments {
            begin,
            full_begin,
            full_end: first.end / kv_rows,
            anchored: first.end.saturating_sub(1) / kv_rows,
            end: last.end.div_ceil(kv_rows).max(begin + 1),
        }
    }

    /// Rows in front of the first that sees a key, of `q_len`.
    fn keyless_rows(self, q_len: u32) -> u32 {
        self.first_row(0, q_len)
    }

    /// First query row of `q_len` whose keys go beyond key `col`; `q_len` if there is none. For
    /// masks that keep a prefix: the rows from there on see this key, and no others do.
    #[inline(always)]
    fn first_row(self, col: u32, q_len: u32) -> u32 {
        let (mut before, mut others) = (0, q_len);
        while before < others {
            let row = before + (others - before) / 2;
            if self.keys(row).end <= col {
                before = row + 1;
            } else {
                others = row;
            }
        }
        before
    }
}

/// The type of a class, for code that has a class as a constant: `Of<{ class as u8 }>`.
pub struct Class<const CLASS: u8>;

/// What [`Class`] stands for.
pub trait Classified {
    /// The geometry.
    type Geometry: Geometry;
}

/// The geometry of the class with this number.
pub type Of<const CLASS: u8> = <Class<CLASS> as Classified>::Geometry;

macro_rules! classes {
    ($($(#[$doc:meta])* $class:ident: $name:literal;)*) => {
        /// Which keys a query row may see: the table's column, without the numbers that a mask may
        /// have. [`geometry`] has a type of the same name for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum MaskClass {
            $($(#[$doc])* $class,)*
        }

        impl MaskClass {
            /// Every class.
            pub const ALL: &[MaskClass] = &[$(MaskClass::$class),*];

            /// The name used in entry names, tables and files.
            pub const fn name(self) -> &'static str {
                match self {
                    $(MaskClass::$class => $name,)*
                }
            }

            /// [`Geometry::ROWS_DIFFER`].
            pub const fn rows_differ(self) -> bool {
                match self {
                    $(MaskClass::$class => geometry::$class::ROWS_DIFFER,)*
                }
            }

            /// [`Geometry::sees`].
            pub fn sees(self, row: i64, col: i64, q_len: i64, kv_len: i64) -> bool {
                match self {
                    $(MaskClass::$class => geometry::$class::sees(row, col, q_len, kv_len),)*
                }
            }

            /// The mask of this class for these lengths, see [`Geometry::new`].
            pub fn geometry(self, q_len: u32, kv_len: u32) -> AnyGeometry {
                match self {
                    $(MaskClass::$class => {
                        AnyGeometry::$class(geometry::$class::new(q_len, kv_len))
                    })*
                }
            }
        }

        /// A mask whose class is known at run time only.
        #[derive(Clone, Copy, Debug)]
        pub enum AnyGeometry {
            $(
                /// Of this class.
                $class(geometry::$class),
            )*
        }

        impl AnyGeometry {
            /// [`Geometry::keys`].
            pub fn keys(self, row: u32) -> Range<u32> {
                match self {
                    $(AnyGeometry::$class(mask) => mask.keys(row),)*
                }
            }

            /// [`Geometry::segments`].
            pub fn segments(self, rows: Range<u32>, kv_rows: u32) -> Segments {
                match self {
                    $(AnyGeometry::$class(mask) => mask.segments(rows, kv_rows),)*
                }
            }

            /// [`Geometry::keyless_rows`].
            pub fn keyless_rows(self, q_len: u32) -> u32 {
                match self {
                    $(AnyGeometry::$class(mask) => mask.keyless_rows(q_len),)*
                }
            }
        }

        /// Calls a generic function once for the type of every class.
        #[cfg(test)]
        macro_rules! each_class {
            ($function:ident) => { $($function::<geometry::$class>();)* };
        }

        $(impl Classified for Class<{ MaskClass::$class as u8 }> {
            type Geometry = geometry::$class;
        })*
    };
}

classes! {
    /// Every key.
    Full: "full";
    /// Key `col` is seen by row `row` if `col <= row + kv_len - q_len`: the last query sees all
    /// keys (aligned bottom right). With more queries than keys the first `q_len - kv_len` rows
    /// see none.
    Causal: "causal";
}

/// One type for each class.
pub mod geometry {
    use super::Geometry;
    use core::ops::Range;

    /// Every key.
    #[derive(Clone, Copy, Debug)]
    pub struct Full {
        kv_len: u32,
    }

    impl Geometry for Full {
        const ROWS_DIFFER: bool = false;
        const FIRST: bool = false;

        #[inline(always)]
        fn new(_q_len: u32, kv_len: u32) -> Self {
            Full { kv_len }
        }

        fn sees(_row: i64, _col: i64, _q_len: i64, _kv_len: i64) -> bool {
            true
        }

        #[inline(always)]
        fn keys(self, _row: u32) -> Range<u32> {
            0..self.kv_len
        }

        #[inline(always)]
        fn first_row(self, col: u32, q_len: u32) -> u32 {
            if col < self.kv_len { 0 } else { q_len }
        }
    }

    /// Keys up to the row's own position, the last query seeing the last key (bottom-right
    /// aligned).
    #[derive(Clone, Copy, Debug)]
    pub struct Causal {
        kv_len: u32,
        /// `kv_len - q_len`: how far the diagonal is shifted to the right.
        shift: i32,
    }

    impl Geometry for Causal {
        const ROWS_DIFFER: bool = true;
        const FIRST: bool = false;

        #[inline(always)]
        fn new(q_len: u32, kv_len: u32) -> Self {
            Causal { kv_len, shift: kv_len as i32 - q_len as i32 }
        }

        fn sees(row: i64, col: i64, q_len: i64, kv_len: i64) -> bool {
            col <= row + kv_len - q_len
        }

        #[inline(always)]
        fn keys(self, row: u32) -> Range<u32> {
            // Both lengths are below 2³¹ by more than a tile, so that only padding rows can wrap.
            let end = (row as i32 + 1).wrapping_add(self.shift).clamp(0, self.kv_len as i32);
            0..end as u32
        }

        #[inline(always)]
        fn first_row(self, col: u32, q_len: u32) -> u32 {
            if col < self.kv_len { (col as i32 - self.shift).max(0) as u32 } else { q_len }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::geometry::Causal;
    use super::*;

    /// A mask with a first key: `left` keys before the diagonal, `right` behind it, aligned bottom
    /// right.
    #[derive(Clone, Copy)]
    struct Window<const LEFT: i64, const RIGHT: i64> {
        q_len: i64,
        kv_len: i64,
    }

    impl<const LEFT: i64, const RIGHT: i64> Geometry for Window<LEFT, RIGHT> {
        const ROWS_DIFFER: bool = true;
        const FIRST: bool = true;

        fn new(q_len: u32, kv_len: u32) -> Self {
            Window { q_len: q_len.into(), kv_len: kv_len.into() }
        }

        fn sees(row: i64, col: i64, q_len: i64, kv_len: i64) -> bool {
            (-LEFT..=RIGHT).contains(&(col - (row + kv_len - q_len)))
        }

        fn keys(self, row: u32) -> Range<u32> {
            let diagonal = i64::from(row) + self.kv_len - self.q_len;
            let end = (diagonal + RIGHT + 1).clamp(0, self.kv_len);
            (diagonal - LEFT).clamp(0, self.kv_len) as u32..end as u32
        }
    }

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
    fn check<M: Geometry>() {
        for q_len in 1..20 {
            for kv_len in 0..20 {
                let mask = M::new(q_len, kv_len);
                let mut before = 0..0;
                for row in 0..q_len {
                    let keys = mask.keys(row);
                    let of =
                        |col: u32| M::sees(row.into(), col.into(), q_len.into(), kv_len.into());
                    assert!(
                        (0..kv_len).all(|col| keys.contains(&col) == of(col)),
                        "{row}: {keys:?}"
                    );
                    assert!(keys.end <= kv_len && before.start <= keys.start);
                    assert!(before.end <= keys.end);
                    before = keys;
                }
                let sees = |row: &u32| mask.keys(*row).end > 0;
                let keyless = (0..q_len).find(sees).unwrap_or(q_len);
                assert_eq!(mask.keyless_rows(q_len), keyless);
                for col in 0..kv_len + 3 {
                    let beyond = |row: &u32| mask.keys(*row).end > col;
                    let first = (0..q_len).find(beyond).unwrap_or(q_len);
                    assert_eq!(mask.first_row(col, q_len), first);
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

    #[test]
    fn every_class_keeps_what_it_means() {
        each_class!(check);
    }

    #[test]
    fn masks_may_have_a_first_key() {
        check::<Window<0, 0>>();
        check::<Window<3, 0>>();
        check::<Window<2, 5>>();
        // Keys before the diagonal alone, and behind it.
        check::<Window<7, -2>>();
        check::<Window<-1, 4>>();
    }

    #[test]
    fn causal_survives_the_longest_lengths() {
        let longest = i32::MAX as u32 - 511;
        let mask = Causal::new(1, longest);
        assert_eq!(mask.keys(0).end, longest);
        assert_eq!(mask.keys(191).end, longest);
        assert_eq!(Causal::new(longest, 1).keys(longest - 1).end, 1);
        assert_eq!(Causal::new(longest, 1).keys(longest - 2).end, 0);
        assert_eq!(Causal::new(longest, 1).keyless_rows(longest), longest - 1);
        assert_eq!(mask.first_row(longest - 1, 1), 0);
        assert_eq!(mask.first_row(longest + 127, 1), 1);
        assert_eq!(Causal::new(longest, 1).first_row(0, longest), longest - 1);
    }
}
