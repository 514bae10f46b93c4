//! The mirror of the header in Python against the library. Says so where there is no Python.

#![cfg(target_os = "linux")]

#[path = "../../tests/fake_driver/fake.rs"]
mod fake;

use std::process::Command;

use fulgurite::internals::VARIANTS;
use fulgurite::{Forward, Plan};

/// The source of the fake driver.
pub const SOURCE: &str = "../tests/fake_driver/libcuda.rs";

/// Python, in this package's folder.
fn python(command: &mut Command) -> Option<&mut Command> {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: there is no `python3` here");
        return None;
    }
    Some(command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("-B"))
}

/// The library, which cargo puts beside this test.
fn library() -> std::path::PathBuf {
    let test = std::env::current_exe().expect("the test knows its place");
    test.with_file_name("libfulgurite_c.so")
}

#[test]
fn the_mirror_agrees_with_the_library() {
    if let Some(python) = python(&mut Command::new("python3")) {
        let said = fake::said(python.arg("interface.py").arg(library()));
        let version = env!("CARGO_PKG_VERSION");
        assert!(said.ends_with(&format!(": version {version}, as here\n")), "{said}");
    }
}

/// Each field of the arguments and of the answers, on a driver that follows no address.
const LAUNCHES: &str = r#"
import sys, interface
library = interface.Library(sys.argv[1])
qo = interface.Layout.batched("f16", (2, 8, 100, 64), (51200, 64, 512, 1))
kv = interface.Layout.batched("f16", (2, 2, 200, 64), (25600, 64, 128, 1))
causal = interface.MASKS["causal"]
request = interface.ForwardRequest(mask=causal, with_lse=1, q=qo, k=kv, v=kv, out=qo)
options = interface.PlanOptions(sm_limit=5, arch=interface.ARCHS["sm90"], workspace_limit_bytes=1)
plan = library.plan_forward(request, options)
assert "causal_short: 5 blocks" in plan.describe(), plan.describe()
assert plan.entry() == "fwd_sm90_f16_d64_causal_short" and plan.workspace_bytes() == 0
fields = [name for name, _ in interface.ForwardArgs._fields_]
known = [*sys.argv[2:], "size_bytes", "workspace", "workspace_bytes"]
assert sorted(fields) == sorted(known), fields
# Those that a call in 16 bits has.
good = {name: 4096 for name in sys.argv[2:] if not name.startswith("descale")}
plan.launcher(None, interface.ForwardArgs(workspace=256, workspace_bytes=1, **good))()
for name in good:
    try:
        plan.launcher(0, interface.ForwardArgs(**{**good, name: 4098}))()
    except interface.Error as error:
        assert error.status == 3 and f"the address of {name} is 0x1002" in str(error), error
    else:
        raise RuntimeError(name)
plan.destroy()
plan.destroy()
library.check(library.functions.fulgurite_device_supported(0))
library.check(library.functions.fulgurite_workspace_reset(0, None, 512, 64))
library.check(library.functions.fulgurite_preload_forward(request))
library.check(library.functions.fulgurite_forward(request, None, interface.ForwardArgs(**good)))

# A mirror that does not fit is found out when the library is loaded.
def load(**mirror):
    for name, value in mirror.items():
        setattr(interface, name, value)
    try:
        interface.Library(sys.argv[1])
    except RuntimeError as error:
        return str(error)

class Off(interface.ForwardArgs):
    def __init__(self):
        super().__init__()
        self.size_bytes = 9

assert load() is None
assert "args.size_bytes is 9" in load(ForwardArgs=Off)
assert "its caller knows 0.0" in load(VERSION="0.0")
"#;

#[test]
fn the_mirror_plans_and_launches() {
    if !fulgurite::is_built(VARIANTS[0].entry) {
        eprintln!("skipped: the kernels are not built (`cargo xtask build`)");
        return;
    }
    if let Some(python) = python(&mut fake::command("python3")) {
        let fields = Plan::<Forward>::fields().iter().map(|field| field.name);
        let said = fake::said(python.args(["-c", LAUNCHES]).arg(library()).args(fields));
        assert_eq!(said.matches("launch fwd_sm90_f16_d64_causal_short").count(), 2, "{said}");
        assert!(said.contains("set 64 bytes at 0x200 to 0"), "{said}");
    }
}
