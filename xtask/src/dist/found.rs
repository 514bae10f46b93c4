//! How build systems find the library: files for pkg-config and CMake that know no absolute path,
//! so that the prefix may lie anywhere.

/// The files, by their place below the prefix.
pub(super) fn files() -> [(&'static str, String); 3] {
    let filled = |text: &str| {
        text.replace("@VERSION@", env!("CARGO_PKG_VERSION"))
            .replace("@MAJOR@", env!("CARGO_PKG_VERSION_MAJOR"))
            .replace("@MINOR@", env!("CARGO_PKG_VERSION_MINOR"))
    };
    [
        ("lib/pkgconfig/fulgurite.pc", filled(include_str!("found/fulgurite.pc"))),
        (
            "lib/cmake/fulgurite/fulguriteConfig.cmake",
            filled(include_str!("found/fulguriteConfig.cmake")),
        ),
        (
            "lib/cmake/fulgurite/fulguriteConfigVersion.cmake",
            filled(include_str!("found/fulguriteConfigVersion.cmake")),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{capture, query};
    use crate::workspace::write_if_changed;
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    /// A prefix with an empty library, and a program that needs it; `None` without a compiler.
    fn prefix() -> Option<tempfile::TempDir> {
        if query("cc", &["--version"]).is_none() {
            eprintln!("skipped: there is no `cc` here");
            return None;
        }
        let scratch = tempfile::tempdir().expect("temporary directories can be made");
        let root = scratch.path();
        for (name, text) in files() {
            assert!(!text.contains('@'), "{name} has an empty place:\n{text}");
            write_if_changed(&root.join(name), &text).expect("a file of our own");
        }
        let header = "const char *fulgurite_version(void);\n";
        write_if_changed(&root.join("include/fulgurite.h"), header).expect("a file of our own");
        write_if_changed(
            &root.join("library.c"),
            "const char *fulgurite_version(void) { return 0; }",
        )
        .expect("a file of our own");
        write_if_changed(
            &root.join("program.c"),
            "#include <fulgurite.h>\nint main(void) { return fulgurite_version() != 0; }\n",
        )
        .expect("a file of our own");
        let soname = format!("libfulgurite.so.{}", env!("CARGO_PKG_VERSION_MAJOR"));
        let library = root.join("lib").join(&soname);
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", &format!("-Wl,-soname,{soname}"), "-o"]).arg(&library);
        capture("cc", cc.arg(root.join("library.c"))).expect("it compiles");
        fs::copy(&library, root.join("lib/libfulgurite.so")).expect("it can be copied");
        Some(scratch)
    }

    fn runs(root: &Path, program: &Path) {
        let mut command = Command::new(program);
        capture("the program", command.env("LD_LIBRARY_PATH", root.join("lib"))).expect("it runs");
    }

    #[test]
    fn pkg_config_finds_the_library() {
        let Some(scratch) = prefix() else { return };
        let root = scratch.path();
        if query("pkg-config", &["--version"]).is_none() {
            eprintln!("skipped: there is no `pkg-config` here");
            return;
        }
        let ask = |arguments: &[&str]| {
            let mut command = Command::new("pkg-config");
            command.env("PKG_CONFIG_PATH", root.join("lib/pkgconfig")).args(arguments);
            let said = capture("pkg-config", command.arg("fulgurite")).expect("it is found");
            String::from_utf8_lossy(&said.stdout).into_owned()
        };
        assert_eq!(ask(&["--modversion"]).trim(), env!("CARGO_PKG_VERSION"));
        let flags = ask(&["--cflags", "--libs"]);
        let program = root.join("program");
        let mut cc = Command::new("cc");
        cc.arg(root.join("program.c")).args(flags.split_whitespace()).arg("-o").arg(&program);
        capture("cc", &mut cc).expect("it compiles and links");
        runs(root, &program);
    }

    #[test]
    fn cmake_finds_the_library() {
        let Some(scratch) = prefix() else { return };
        if query("cmake", &["--version"]).is_none() {
            eprintln!("skipped: there is no `cmake` here");
            return;
        }
        let root = scratch.path();
        let configure = |version: &str| {
            let text = format!(
                "cmake_minimum_required(VERSION 3.10)\nproject(program C)\n\
                 find_package(fulgurite {version} REQUIRED)\nadd_executable(program program.c)\n\
                 target_link_libraries(program fulgurite::fulgurite)\n"
            );
            write_if_changed(&root.join("CMakeLists.txt"), &text).expect("a file of our own");
            let mut cmake = Command::new("cmake");
            cmake.arg("-S").arg(root).arg("-B").arg(root.join("build"));
            cmake.arg(format!("-DCMAKE_PREFIX_PATH={}", root.display()));
            capture("cmake", &mut cmake)
        };
        let [major, minor] = [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR")];
        let newer = configure(&format!("{major}.{minor}.999")).expect_err("there is none so new");
        assert!(newer.to_string().contains(env!("CARGO_PKG_VERSION")), "{newer}");
        configure("99").expect_err("another major version");
        configure(&format!("{major}.{minor}")).expect("it is found");
        let mut cmake = Command::new("cmake");
        capture("cmake", cmake.arg("--build").arg(root.join("build"))).expect("it builds");
        runs(root, &root.join("build/program"));
    }
}
