//! `host/ptx/manifest.json`: what was built, from what.

use fulgurite_spec::{KERNELS, Kernel};
use serde_json::{Value, json};

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

/// The manifest's text, in the order of the table of kernels.
pub fn write(built: &[Built]) -> String {
    let line = |kernel: &Kernel, built: &Built| {
        json!({
            "entry": kernel.entry,
            "file": format!("{}.ptx", kernel.entry),
            "arch": kernel.arch.target(),
            "family": kernel.family,
            "param_bytes": kernel.param_bytes,
            "threads": kernel.launch.threads,
            "smem_bytes": kernel.launch.smem_bytes,
            "hash": built.hash,
            "inputs": built.inputs,
            "compiler": built.compiler,
        })
    };
    let entries: Vec<Value> = KERNELS
        .iter()
        .filter_map(|kernel| {
            let built = built.iter().find(|built| built.entry == kernel.entry);
            built.map(|built| line(kernel, built))
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
                entry: KERNELS[row].entry.to_string(),
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
