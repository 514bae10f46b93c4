//! Which shapes are tried: everything that may fit, pruned to what may also be fast.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use fulgurite_spec::forward::{ANY, KV_ROWS_LEAST, KV_ROWS_MOST};
use fulgurite_spec::launch::WARPGROUP_ROWS;
use fulgurite_spec::{Arch, Dtype, FORWARD, ForwardRow, MaskClass, SoftmaxKind, Tile};

/// What to try.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Columns of a head.
    pub head_dim: u32,
    /// Element type.
    pub dtype: Dtype,
    /// Masks, each with candidates of its own.
    pub masks: Vec<MaskClass>,
    /// Softmaxes, each with every shape.
    pub softmaxes: Vec<SoftmaxKind>,
    /// Query rows of a job.
    pub q_rows: Vec<u32>,
    /// Rows of K and V in a step.
    pub kv_rows: RangeInclusive<u32>,
    /// Buffers for K and for V.
    pub kv_stages: RangeInclusive<u32>,
    /// Most sizes of a step to try for the same mask, query rows and stages: the largest ones.
    pub limit: usize,
}

/// One row of the table to try.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The row.
    pub row: &'static ForwardRow,
    /// Whether the table has this shape.
    pub current: bool,
}

/// The candidates: for each mask the shapes of the table, then those that are feasible, with as
/// many Q parts as fit, up to two for each consumer.
pub fn candidates(wanted: &Wanted) -> Vec<Candidate> {
    let mut found = Vec::new();
    for &mask in &wanted.masks {
        let mut kernels = table_kernels(wanted, mask);
        let in_table = kernels.len();
        for &softmax in &wanted.softmaxes {
            let of_softmax = feasible(wanted, softmax).into_iter().map(|tile| (softmax, tile));
            let new: Vec<_> = of_softmax.filter(|kernel| !kernels.contains(kernel)).collect();
            kernels.extend(new);
        }
        found.extend(kernels.iter().enumerate().map(|(index, (softmax, tile))| Candidate {
            row: Box::leak(Box::new(row(wanted.dtype, mask, *softmax, tile))),
            current: index < in_table,
        }));
    }
    found
}

/// What the table has now.
fn table_kernels(wanted: &Wanted, mask: MaskClass) -> Vec<(SoftmaxKind, Tile)> {
    let asked = |row: &&ForwardRow| {
        (row.head_dim, row.dtype, row.mask) == (wanted.head_dim, wanted.dtype, mask)
    };
    FORWARD.iter().filter(asked).map(|row| (row.softmax, Tile::of(row))).collect()
}

fn feasible(wanted: &Wanted, softmax: SoftmaxKind) -> Vec<Tile> {
    let mut tiles = Vec::new();
    // Sizes of a step found so far for the same query rows and stages.
    let mut sizes: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for kv_rows in (KV_ROWS_LEAST..=KV_ROWS_MOST).rev().step_by(16) {
        for &q_rows in &wanted.q_rows {
            for kv_stages in wanted.kv_stages.clone() {
                let consumers = q_rows / WARPGROUP_ROWS;
                let with_parts = |parts| {
                    let head_dim = wanted.head_dim;
                    let tile = Tile::forward(softmax, head_dim, q_rows, kv_rows, parts, kv_stages);
                    Tile { scores: wanted.dtype, values: wanted.dtype, ..tile }
                };
                let tile = (consumers..=2 * consumers).rev().map(with_parts);
                let tile = tile.into_iter().find(Tile::is_feasible);
                let size = sizes.entry((q_rows, kv_stages)).or_default();
                if let Some(tile) = tile
                    && wanted.kv_rows.contains(&kv_rows)
                    && *size < wanted.limit
                {
                    *size += 1;
                    tiles.push(tile);
                }
            }
        }
    }
    tiles
}

fn row(dtype: Dtype, mask: MaskClass, softmax: SoftmaxKind, tile: &Tile) -> ForwardRow {
    let Tile { head_dim, kv_rows, q_parts, kv_stages, .. } = *tile;
    let (arch, q_rows) = (Arch::Sm90, tile.q_rows());
    let entry = format!(
        "fwd_sm90_{}_d{head_dim}_{}_{}_q{q_rows}_kv{kv_rows}_s{kv_stages}_p{q_parts}",
        dtype.name(),
        mask.name(),
        softmax.name()
    );
    let entry = Box::leak(entry.into_boxed_str());
    ForwardRow {
        entry,
        arch,
        dtype,
        scores: dtype,
        head_dim,
        mask,
        softmax,
        q_rows,
        kv_rows,
        warps: tile.warps,
        q_parts,
        kv_stages,
        kv_len_limit: ANY,
    }
}

/// A row as it stands in the table.
pub fn source(row: &ForwardRow) -> String {
    let ForwardRow { entry, arch, dtype, head_dim, mask, softmax, .. } = row;
    let ForwardRow { q_rows, kv_rows, q_parts, kv_stages, kv_len_limit, .. } = row;
    let start = arch.name();
    format!(
        "{entry}: {start}({dtype:?}, {head_dim}, {mask:?}, {softmax:?})\
         .tile({q_rows}, {kv_rows}, {q_parts}, {kv_stages}).to({kv_len_limit});"
    )
}

/// The file that holds the table, with these rows.
pub fn table_file<'a>(rows: impl Iterator<Item = &'a ForwardRow>) -> String {
    let rows: String = rows.map(|row| format!("    {}\n", source(row))).collect();
    format!(
        "//! Candidates.\n\n/// As the table of the library.\n#[macro_export]\n\
         macro_rules! for_each_forward {{\n($with:ident) => {{ $with! {{\n{rows}}} }};\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulgurite_spec::forward::{LONG, LONGER, SOONER};

    fn wanted(head_dim: u32) -> Wanted {
        Wanted {
            head_dim,
            dtype: Dtype::Bf16,
            masks: vec![MaskClass::Full, MaskClass::Causal],
            softmaxes: vec![SoftmaxKind::Maxima, SoftmaxKind::Anchors],
            q_rows: vec![128, 192],
            kv_rows: 0..=256,
            kv_stages: 2..=3,
            limit: 3,
        }
    }

    #[test]
    fn every_shape_of_the_table_is_feasible_and_a_candidate() {
        // Windows have the tiles of the causal mask, and are not tried.
        for row in FORWARD.iter().filter(|row| row.mask != MaskClass::Window) {
            let tile = Tile::of(row);
            assert!(tile.is_feasible(), "{}", row.entry);
            let all = candidates(&Wanted { dtype: row.dtype, ..wanted(row.head_dim) });
            let same = |found: &&Candidate| {
                (found.row.mask, found.row.softmax) == (row.mask, row.softmax)
                    && Tile::of(found.row) == tile
            };
            let found: Vec<_> = all.iter().filter(same).collect();
            assert!(found.len() == 1 && found[0].current, "{}: {found:?}", row.entry);
        }
    }

    #[test]
    fn candidates_are_feasible_pruned_and_named_apart() {
        for head_dim in [64, 96, 128, 160, 192, 224, 256] {
            let all = candidates(&wanted(head_dim));
            let mut names: Vec<_> = all.iter().map(|found| found.row.entry).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all.len());
            assert!(all.iter().all(|found| Tile::of(found.row).is_feasible()));
            let group = |found: &&Candidate| {
                let row = found.row;
                !found.current
                    && (row.mask, row.q_rows, row.kv_stages) == (MaskClass::Full, 128, 2)
                    && row.softmax == SoftmaxKind::Maxima
            };
            assert!((1..=3).contains(&all.iter().filter(group).count()), "{head_dim}");
        }
    }

    #[test]
    fn rows_are_written_as_the_table_has_them() {
        let table = include_str!("../../../kernels/spec/src/forward/table.rs");
        let names = |text: &str| {
            let named = [("SOONER", SOONER), ("LONGER", LONGER), ("LONG", LONG)];
            named.iter().fold(text.to_string(), |text, (name, keys)| {
                text.replace(&format!("to({name})"), &format!("to({keys})"))
            })
        };
        let rows = |text: &str| -> Vec<String> {
            let rows = text.lines().map(str::trim).filter(|line| line.starts_with("fwd_"));
            rows.map(|row| row.replace(&format!(".to({ANY})"), "")).collect()
        };
        assert_eq!(rows(&table_file(FORWARD.iter())), rows(&names(table)));
    }
}
