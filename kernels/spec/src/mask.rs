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
    fn new(q_len: u32, kv_len: u32, ends: Ends) -> Self;

    /// Whether row `row` sees key `col`: what the mask means, in the plainest words, for positions
    /// inside of these lengths. Tests and references compare with it.
    fn sees(row: i64, col: i64, q_len: i64, kv_len: i64, ends: Ends) -> bool;

    /// Keys that query row `row` sees. Neither end ever decreases from row to row, also where there
    /// are no keys; rows at or past `q_len` are padding and may see any keys.
    fn keys(self, row: u32) -> Range<u32>;

    /// The KV tiles, of `kv_rows` keys each, for the query rows `rows` (not empty).
    #[inline(always)]
    fn segments(self, rows: Range<u32>, kv_rows: u32) -> Segments {
        let first = self.keys(rows.start);
        let last = self.keys(rows.end - 1);
        if Self::FIRST {
            let end = last.end.div_ceil(kv_rows);
            // Rows whose keys would all lie behind the last one start in its tile.
            let begin = (first.start / kv_rows).min(end.saturating_sub(1));
            let full_begin = last.start.div_ceil(kv_rows);
            return Segments {
                begin,
                full_begin,
                full_end: if full_begin < end { first.end / kv_rows } else { begin },
                anchored: (first.end.saturating_sub(1) / kv_rows).max(begin),
                end: end.max(1),
            };
        }
        Segments {
            begin: 0,
            full_begin: 0,
            full_end: first.end / kv_rows,
            anchored: first.end.saturating_sub(1) / kv_rows,
            end: last.end.div_ceil(kv_rows).max(1),
        }
    }

    /// Rows in front of the first that sees a key, of `q_len`.
    fn keyless_rows(self, q_len: u32) -> u32 {
        self.first_row(0, q_len)
    }

    /// First query row of `q_len` whose keys go beyond key `col`; `q_len` if there is none. The
    /// rows from there to [`end_row`](Self::end_row) see this key, and no others do.
    #[inline(always)]
    fn first_row(self, col: u32, q_len: u32) -> u32 {
        rows_before(q_len, |row| self.keys(row).end <= col)
    }

    /// First query row of `q_len` whose keys begin behind key `col`; `q_len` if there is none.
    #[inline(always)]
    fn end_row(self, col: u32, q_len: u32) -> u32 {
        if !Self::FIRST {
            return q_len;
        }
        rows_before(q_len, |row| self.keys(row).start <= col)
    }
}

/// How many of `q_len` rows are in front of the first for which `is_before` does not hold, nor does
/// for any behind that one.
#[inline(always)]
fn rows_before(q_len: u32, is_before: impl Fn(u32) -> bool) -> u32 {
    let (mut before, mut others) = (0, q_len);
    while before < others {
        let row = before + (others - before) / 2;
        if is_before(row) {
            before = row + 1;
        } else {
            others = row;
        }
    }
    before
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
            fn sees(self, row: i64, col: i64, q_len: i64, kv_len: i64, ends: Ends) -> bool {
                match self {
                    $(MaskClass::$class => {
                        geometry::$class::sees(row, col, q_len, kv_len, ends)
                    })*
                }
            }

            /// The mask of this class for these lengths, see [`Geometry::new`].
            fn geometry(self, q_len: u32, kv_len: u32, ends: Ends) -> AnyGeometry {
                match self {
                    $(MaskClass::$class => {
                        AnyGeometry::$class(geometry::$class::new(q_len, kv_len, ends))
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
    /// Keys from `left` before the row's own position to `right` behind it, both included.
    Window: "window";
}

/// The numbers of a mask, as kernels receive them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Keys before the row's own position that it sees; `i32::MAX`: all.
    pub left: i32,
    /// The same behind it.
    pub right: i32,
}

impl Ends {
    /// Of masks that have none.
    pub const NONE: Ends = Ends { left: i32::MAX, right: i32::MAX };
}

/// Which keys a query row sees.
///
/// Row `row` stands at the key `row + kv_len - q_len`: the last query at the last key (aligned
/// bottom right).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mask {
    /// Every key.
    Full,
    /// The keys up to the row's position. With more queries than keys the first `q_len - kv_len`
    /// rows see none.
    Causal,
    /// The keys from `left` before the row's position to `right` behind it, both ends included.
    /// 1024 keys, the row's own among them: `left: Some(1023), right: Some(0)`. Negative numbers
    /// are offsets: `right: Some(-1)` ends before the row's own key.
    Window {
        /// Keys before the row's position; `None`: all of them.
        left: Option<i32>,
        /// Keys behind it; `None`: all of them.
        right: Option<i32>,
    },
}

impl MaskClass {
    /// A mask of this class, with small numbers where it has some: for those who go through all.
    pub const fn example(self) -> Mask {
        match self {
            MaskClass::Full => Mask::Full,
            MaskClass::Causal => Mask::Causal,
            MaskClass::Window => Mask::Window { left: Some(70), right: Some(20) },
        }
    }
}

impl Mask {
    /// Its class.
    pub const fn class(self) -> MaskClass {
        match self {
            Mask::Full => MaskClass::Full,
            Mask::Causal => MaskClass::Causal,
            Mask::Window { .. } => MaskClass::Window,
        }
    }

    /// Its numbers. No row has as many keys before or behind it as stand for an end that is not
    /// there.
    pub const fn ends(self) -> Ends {
        let Mask::Window { left, right } = self else {
            return Ends::NONE;
        };
        Ends { left: or_none(left), right: or_none(right) }
    }

    /// The name of its class.
    pub const fn name(self) -> &'static str {
        self.class().name()
    }

    /// [`Geometry::sees`].
    pub fn sees(self, row: i64, col: i64, q_len: i64, kv_len: i64) -> bool {
        self.class().sees(row, col, q_len, kv_len, self.ends())
    }

    /// The mask for these lengths, see [`Geometry::new`].
    pub fn geometry(self, q_len: u32, kv_len: u32) -> AnyGeometry {
        self.class().geometry(q_len, kv_len, self.ends())
    }

    /// The mask of the simplest class that shows all rows of a call with these lengths the same
    /// keys.
    pub fn simplest(self, q_len: usize, kv_len: usize) -> Mask {
        let Mask::Window { left, right } = self else {
            return self;
        };
        // The last row begins furthest right, the first one ends furthest left.
        let reaches = |end: Option<i32>, length: usize| {
            end.is_none_or(|end| i128::from(end) + 1 >= length as i128)
        };
        match (reaches(left, kv_len), reaches(right, q_len)) {
            (true, true) => Mask::Full,
            (true, false) if right == Some(0) => Mask::Causal,
            _ => self,
        }
    }
}

const fn or_none(end: Option<i32>) -> i32 {
    match end {
        Some(end) => end,
        None => i32::MAX,
    }
}

/// One type for each class.
pub mod geometry {
    use super::{Ends, Geometry};
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
        fn new(_q_len: u32, kv_len: u32, _ends: Ends) -> Self {
            Full { kv_len }
        }

        fn sees(_row: i64, _col: i64, _q_len: i64, _kv_len: i64, _ends: Ends) -> bool {
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
        fn new(q_len: u32, kv_len: u32, _ends: Ends) -> Self {
            Causal { kv_len, shift: kv_len as i32 - q_len as i32 }
        }

        fn sees(row: i64, col: i64, q_len: i64, kv_len: i64, _ends: Ends) -> bool {
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

    /// A run of keys that moves on with the row (bottom-right aligned).
    #[derive(Clone, Copy, Debug)]
    pub struct Window {
        kv_len: u32,
        /// The first key of row 0, if there were keys in front of key 0 and behind the last.
        start: i32,
        /// The end of its keys, likewise.
        end: i32,
    }

    impl Geometry for Window {
        const ROWS_DIFFER: bool = true;
        const FIRST: bool = true;

        #[inline(always)]
        fn new(q_len: u32, kv_len: u32, ends: Ends) -> Self {
            let shift = kv_len as i32 - q_len as i32;
            // A sum that leaves 32 bits is beyond all keys of all rows.
            let (start, end) = (shift.saturating_sub(ends.left), shift + 1);
            Window { kv_len, start, end: end.saturating_add(ends.right) }
        }

        fn sees(row: i64, col: i64, q_len: i64, kv_len: i64, ends: Ends) -> bool {
            let position = row + kv_len - q_len;
            position - i64::from(ends.left) <= col && col <= position + i64::from(ends.right)
        }

        #[inline(always)]
        fn keys(self, row: u32) -> Range<u32> {
            let moved =
                |first: i32| (row as i32).saturating_add(first).clamp(0, self.kv_len as i32) as u32;
            moved(self.start)..moved(self.end)
        }

        #[inline(always)]
        fn first_row(self, col: u32, q_len: u32) -> u32 {
            let first = i64::from(col) - i64::from(self.end) + 1;
            if col < self.kv_len { first.clamp(0, q_len.into()) as u32 } else { q_len }
        }

        #[inline(always)]
        fn end_row(self, col: u32, q_len: u32) -> u32 {
            let end = i64::from(col) - i64::from(self.start) + 1;
            if col < self.kv_len { end.clamp(0, q_len.into()) as u32 } else { q_len }
        }
    }
}

#[cfg(test)]
mod tests;
