//! The folder in which the driver keeps compiled kernels: without it each process compiles anew.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The driver's cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// Its folder; `None` if there is no home directory to put it into.
    pub folder: Option<PathBuf>,
    /// Whether kernels can be kept.
    pub usable: bool,
    /// Why not, and what to do.
    pub problem: Option<String>,
}

impl Cache {
    /// The cache as the driver finds it by its variables.
    pub(super) fn of_the_driver(variable: impl Fn(&str) -> Option<OsString>) -> Cache {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let folder = match (set("CUDA_CACHE_PATH"), set("HOME")) {
            (Some(path), _) => Some(PathBuf::from(path)),
            (None, Some(home)) => Some(Path::new(&home).join(".nv/ComputeCache")),
            (None, None) => None,
        };
        let problem = match &folder {
            _ if set("CUDA_CACHE_DISABLE").is_some_and(|value| value == "1") => {
                Some("switched off: unset CUDA_CACHE_DISABLE".to_owned())
            }
            None => Some("no home directory: set CUDA_CACHE_PATH".to_owned()),
            Some(folder) => try_writing(folder).err().map(|error| {
                format!(
                    "{error}: each process compiles its kernels anew; set CUDA_CACHE_PATH to a \
                     folder that can be written"
                )
            }),
        };
        Cache { folder, usable: problem.is_none(), problem }
    }
}

/// Writes a file into the folder, or the one that it would be made in, and removes it.
fn try_writing(folder: &Path) -> Result<(), String> {
    let there = folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let file = there.join(format!(".fulgurite-info-{}", std::process::id()));
    fs::write(&file, "")
        .map_err(|error| format!("{} cannot be written ({error})", folder.display()))?;
    fs::remove_file(&file).map_err(|error| format!("{} ({error})", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(set: &[(&str, &str)]) -> Cache {
        Cache::of_the_driver(|name| {
            set.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_folder_follows_the_variables() {
        let folder = std::env::temp_dir();
        let text = folder.to_str().expect("a plain path");
        let home = cache(&[("HOME", text)]);
        assert_eq!(home.folder, Some(folder.join(".nv/ComputeCache")));
        assert_eq!((home.usable, &home.problem), (true, &None));
        assert_eq!(cache(&[("HOME", "/nowhere"), ("CUDA_CACHE_PATH", text)]).folder, Some(folder));
    }

    #[test]
    fn a_cache_that_keeps_nothing_is_told() {
        let off = cache(&[("HOME", "/"), ("CUDA_CACHE_DISABLE", "1")]);
        assert!(!off.usable && off.problem.is_some_and(|text| text.contains("CUDA_CACHE_DISABLE")));
        let homeless = cache(&[]);
        assert!(!homeless.usable && homeless.folder.is_none());
        // A folder that nobody can write into, not even root.
        let locked = cache(&[("CUDA_CACHE_PATH", "/proc/fulgurite")]);
        let problem = locked.problem.expect("it cannot be written");
        assert!(problem.contains("/proc/fulgurite cannot be written"), "{problem}");
        assert!(problem.contains("set CUDA_CACHE_PATH"), "{problem}");
    }
}
