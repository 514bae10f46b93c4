//! `host/ptx/manifest.json`: what was built, from what.

use fulgurite_spec::{FwdParams, LaunchSpec, Tile, VARIANTS, Variant};
use serde_json::{Value, json};

use crate::ptx::Stamp;

/// One line of the manifest: an entry whose PTX file is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Name of the entry.
    pub entry: String,
    /// [`content_hash`] of its PTX.
    pub hash: String,
    /// [`content_hash`] of everything the PTX was made from.
    pub inputs: String,
    /// The compiler that made it.
    pub compiler: String,
}

/// A 64-bit FNV-1a hash in hexadecimal digits: tells contents apart, not a safeguard.
pub fn content_hash(content: &[u8]) -> String {
    let hash = content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// What the builder stamps into a variant's PTX.
pub fn stamp(variant: &Variant) -> Stamp {
    let launch = LaunchSpec::of(variant);
    Stamp {
        entry: variant.entry.to_string(),
        target: variant.arch.target().to_string(),
        threads: launch.threads,
        blocks_per_sm: launch.blocks_per_sm,
        param_bytes: size_of::<FwdParams>(),
    }
}

/// The manifest's text, in the order of the table of variants.
pub fn write(built: &[Built]) -> String {
    let entries: Vec<Value> = VARIANTS
        .iter()
        .filter_map(|variant| {
            built.iter().find(|built| built.entry == variant.entry).map(|built| {
                let tile = Tile::of(variant);
                let launch = LaunchSpec::of(variant);
                json!({
                    "entry": variant.entry,
                    "file": format!("{}.ptx", variant.entry),
                    "arch": variant.arch.target(),
                    "dtype": variant.dtype.name(),
                    "head_dim": variant.head_dim,
                    "mask": variant.mask.name(),
                    "softmax": variant.softmax.name(),
                    "tile": {
                        "q_rows": tile.q_rows(),
                        "kv_rows": tile.kv_rows,
                        "q_parts": tile.q_parts,
                        "kv_stages": tile.kv_stages,
                    },
                    "threads": launch.threads,
                    "smem_bytes": launch.smem_bytes,
                    "hash": built.hash,
                    "inputs": built.inputs,
                    "compiler": built.compiler,
                })
            })
        })
        .collect();
    format!("{:#}\n", json!({ "entries": entries }))
}

/// The lines of a manifest's text; a text that is not a manifest has none, so that everything is
/// built again.
pub fn read(text: &str) -> Vec<Built> {
    let manifest: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let field = |entry: &Value, name: &str| entry[name].as_str().map(str::to_string);
    manifest["entries"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            Some(Built {
                entry: field(entry, "entry")?,
                hash: field(entry, "hash")?,
                inputs: field(entry, "inputs")?,
                compiler: field(entry, "compiler")?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_back() {
        let built: Vec<Built> = [1, 0]
            .map(|row: usize| Built {
                entry: VARIANTS[row].entry.to_string(),
                hash: content_hash(b"ptx"),
                inputs: content_hash(b"source"),
                compiler: "rustc 1.0".to_string(),
            })
            .into();
        let mut sorted = built.clone();
        sorted.reverse();
        assert_eq!(read(&write(&built)), sorted);
        assert_eq!(read("no manifest"), []);
    }

    #[test]
    fn hashes_are_those_of_fnv() {
        assert_eq!(content_hash(b""), "cbf29ce484222325");
        assert_eq!(content_hash(b"foobar"), "85944171f73967e8");
    }
}
