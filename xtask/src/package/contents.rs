//! What the packages must hold, and how large they may be.

use std::fs;
use std::path::Path;

use fulgurite_spec::KERNELS;

use super::{MAIN, PUBLISHED, unpacked_package};
use crate::error::{Error, Result};
use crate::workspace::Workspace;

/// Files that every package has: what the registry shows, and what both licences ask for.
const EVERYWHERE: [&str; 3] = ["README.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// The registry takes no larger package.
const LIMIT_BYTES: u64 = 10 << 20;

/// Above this a user waits for the download, and it is time to think about it.
const LARGE_BYTES: u64 = 2 << 20;

/// Refuses packages that lack a file, or a kernel, or have another kernel than the checkout.
pub fn check(workspace: &Workspace, unpacked: &Path) -> Result<()> {
    let mut problems = Vec::new();
    for package in PUBLISHED {
        let directory = unpacked_package(unpacked, package);
        let lacks = EVERYWHERE.iter().filter(|name| !directory.join(name).is_file());
        problems.extend(lacks.map(|name| format!("{package}: {name} is not in the package")));
    }
    let ptx = unpacked_package(unpacked, MAIN).join("ptx");
    for kernel in KERNELS {
        problems.extend(kernel_problem(&workspace.ptx(), &ptx, kernel.entry));
    }
    let count = ptx_count(&ptx)?;
    if problems.is_empty() && count != KERNELS.len() {
        let want = KERNELS.len();
        problems.push(format!("{MAIN}: {count} PTX files are in the package of {want} kernels"));
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Package(problems)) }
}

fn kernel_problem(checkout: &Path, package: &Path, entry: &str) -> Option<String> {
    let file = format!("{entry}.ptx");
    match fs::read(package.join(&file)) {
        Err(_) => Some(format!("{MAIN}: {file} is not in the package")),
        Ok(packed) if fs::read(checkout.join(&file)).is_ok_and(|ptx| ptx == packed) => None,
        Ok(_) => Some(format!("{MAIN}: {file} differs from the checkout's")),
    }
}

fn ptx_count(directory: &Path) -> Result<usize> {
    let items = fs::read_dir(directory).map_err(Error::file("list", directory))?;
    let is_ptx = |path: &Path| path.extension().is_some_and(|extension| extension == "ptx");
    Ok(items.flatten().filter(|item| is_ptx(&item.path())).count())
}

/// Bytes of a package, which the registry must take.
pub fn check_size(archive: &Path) -> Result<u64> {
    let bytes = fs::metadata(archive).map_err(Error::file("read", archive))?.len();
    if bytes > LIMIT_BYTES {
        let size = describe_size(bytes);
        return Err(Error::Package(vec![format!("{MAIN}: {size}, the registry takes 10.00 MiB")]));
    }
    Ok(bytes)
}

/// A size as it is told, and whether it is large.
pub fn describe_size(bytes: u64) -> String {
    let size = format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20));
    if bytes > LARGE_BYTES { format!("{size}, more than the 2.00 MiB aimed at") } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkout and its unpacked packages, all that they should be.
    fn packed() -> (tempfile::TempDir, Workspace, std::path::PathBuf) {
        let scratch = tempfile::tempdir().expect("temporary directories can be made");
        let workspace = Workspace::at(&scratch.path().join("checkout"));
        let unpacked = scratch.path().join("unpacked");
        for package in PUBLISHED {
            let directory = unpacked_package(&unpacked, package);
            fs::create_dir_all(&directory).expect("a directory of our own");
            for name in EVERYWHERE {
                fs::write(directory.join(name), "text").expect("a file of our own");
            }
        }
        for directory in [workspace.ptx(), unpacked_package(&unpacked, MAIN).join("ptx")] {
            fs::create_dir_all(&directory).expect("a directory of our own");
            for kernel in KERNELS {
                let file = directory.join(format!("{}.ptx", kernel.entry));
                fs::write(file, kernel.entry).expect("a file of our own");
            }
        }
        (scratch, workspace, unpacked)
    }

    #[test]
    fn whole_packages_are_taken() {
        let (_scratch, workspace, unpacked) = packed();
        check(&workspace, &unpacked).expect("all is there");
    }

    #[test]
    fn packages_that_lack_something_are_refused() {
        let (_scratch, workspace, unpacked) = packed();
        let refused = || check(&workspace, &unpacked).expect_err("something is off").to_string();
        let ptx = unpacked_package(&unpacked, MAIN).join("ptx");
        fs::write(ptx.join("fwd_old.ptx"), "").expect("a file of our own");
        assert!(refused().contains("PTX files are in the package"), "{}", refused());
        let kernel = ptx.join(format!("{}.ptx", KERNELS[0].entry));
        fs::write(&kernel, "older").expect("a file of our own");
        assert!(refused().contains("differs from the checkout's"), "{}", refused());
        fs::remove_file(&kernel).expect("it is there");
        assert!(refused().contains("ptx is not in the package"), "{}", refused());
        let licence = unpacked_package(&unpacked, "fulgurite-gpu").join("LICENSE-APACHE");
        fs::remove_file(licence).expect("it is there");
        assert!(refused().contains("fulgurite-gpu: LICENSE-APACHE"), "{}", refused());
    }

    #[test]
    fn large_packages_are_told_and_larger_ones_refused() {
        assert_eq!(describe_size(LARGE_BYTES), "2.00 MiB");
        assert!(describe_size(LARGE_BYTES * 3 / 2).contains("3.00 MiB, more than"));
        let scratch = tempfile::tempdir().expect("temporary directories can be made");
        let archive = scratch.path().join("a.crate");
        let file = fs::File::create(&archive).expect("a file of our own");
        file.set_len(LIMIT_BYTES).expect("a file of our own");
        assert_eq!(check_size(&archive).expect("just small enough"), LIMIT_BYTES);
        file.set_len(LIMIT_BYTES + 1).expect("a file of our own");
        assert!(check_size(&archive).expect_err("too large").to_string().contains("10.00 MiB"));
    }
}
