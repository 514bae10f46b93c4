//! The header against the library: programs are compiled with it as C and C++, their idea of
//! structs and numbers compared with Rust's, and one is linked and run. Says so where there is no
//! compiler.

#[path = "../../tests/fake_driver/fake.rs"]
#[cfg(target_os = "linux")]
mod fake;

mod compiler;

use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use compiler::{LANGUAGES, Scratch, compiler, run};

use fulgurite::internals::VARIANTS;
use fulgurite::{Access, Backward, Field, Forward, Plan};
use fulgurite_c::{
    BackwardArgs, BackwardRequest, Buffer, Descale, ForwardArgs, ForwardRequest, Layout,
    PlanOptions, Status,
};

/// The source of the fake driver.
pub const SOURCE: &str = "../tests/fake_driver/libcuda.rs";

/// A struct of the header: its name, its bytes, and of each field the name, place and bytes.
struct Struct {
    name: &'static str,
    bytes: usize,
    fields: Vec<(&'static str, usize, usize)>,
}

/// Bytes of the field that a reference leads to.
fn bytes_of<S, F>(_field: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! describe {
    ($type:ident, $name:literal: $($field:ident)*) => {
        Struct {
            name: $name,
            bytes: size_of::<$type>(),
            fields: vec![$((
                stringify!($field),
                offset_of!($type, $field),
                bytes_of(|it: &$type| &it.$field),
            )),*],
        }
    };
}

fn structs() -> [Struct; 8] {
    [
        describe!(Layout, "fulgurite_layout": dtype form sequences shape strides),
        describe!(Descale, "fulgurite_descale": kind reserved strides),
        describe!(ForwardRequest, "fulgurite_forward_request":
            size_bytes device mask with_lse scale q k v out precision window_ends
            descale_q descale_k descale_v window_left window_right),
        describe!(ForwardArgs, "fulgurite_forward_args":
            size_bytes q k v out lse workspace workspace_bytes descale_q descale_k descale_v),
        describe!(BackwardRequest, "fulgurite_backward_request":
            size_bytes forward d_out dq dk dv with_d_lse reserved),
        describe!(BackwardArgs, "fulgurite_backward_args":
            size_bytes q k v out lse d_out dq dk dv d_lse workspace workspace_bytes),
        describe!(PlanOptions, "fulgurite_plan_options":
            size_bytes entry workspace_limit_bytes sm_limit arch),
        describe!(Buffer, "fulgurite_buffer": name dtype access elements bytes align_bytes),
    ]
}

/// A program that does not compile unless the header has Rust's structs and numbers, and a field
/// for each buffer of a launch, which may be written exactly if the launch writes it.
fn agreement() -> String {
    let mut text = "#include \"fulgurite.h\"\n#include <stddef.h>\n".to_owned();
    let mut count = 0;
    let mut holds = |text: &mut String, claim: String| {
        count += 1;
        *text += &format!("typedef char holds_{count}[({claim}) ? 1 : -1];\n");
    };
    for Struct { name, bytes, fields } in structs() {
        holds(&mut text, format!("sizeof({name}) == {bytes}"));
        for (field, place, bytes) in fields {
            holds(&mut text, format!("offsetof({name}, {field}) == {place}"));
            holds(&mut text, format!("sizeof((({name} *)0)->{field}) == {bytes}"));
        }
    }
    let [major, minor, patch] = [
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
        env!("CARGO_PKG_VERSION_PATCH"),
    ];
    let number = format!("{major} * 10000 + {minor} * 100 + {patch}");
    holds(&mut text, format!("FULGURITE_VERSION_NUMBER == {number}"));
    for (number, name) in numbers() {
        holds(&mut text, format!("FULGURITE_{name} == {number}"));
    }
    text += &places("forward", Plan::<Forward>::fields());
    text + &places("backward", Plan::<Backward>::fields())
}

/// Functions that lead to each buffer of an operation's arguments, as const exactly if launches
/// only read it.
fn places(operation: &str, fields: &[Field]) -> String {
    let mut text = String::new();
    for (access, pointer) in [(Access::Read, "const void **"), (Access::Write, "void **")] {
        let name =
            format!("{operation}_{}", if access == Access::Read { "read" } else { "written" });
        let head = format!("{pointer}{name}(int number, fulgurite_{operation}_args *args)");
        text += &format!("{head};\n{head} {{\n");
        for (number, field) in fields.iter().enumerate().filter(|(_, it)| it.access == access) {
            text += &format!("    if (number == {number}) return &args->{};\n", field.name);
        }
        text += "    return NULL;\n}\n";
    }
    text
}

/// The header's numbers.
fn numbers() -> Vec<(i32, &'static str)> {
    let statuses = [
        (Status::Ok, "OK"),
        (Status::Argument, "ERROR_ARGUMENT"),
        (Status::Request, "ERROR_REQUEST"),
        (Status::Buffer, "ERROR_BUFFER"),
        (Status::Device, "ERROR_DEVICE"),
        (Status::Driver, "ERROR_DRIVER"),
        (Status::Internal, "ERROR_INTERNAL"),
        (Status::Unsupported, "ERROR_UNSUPPORTED"),
    ];
    let dtypes = ["BF16", "F16", "F32", "E4M3", "E5M2", "U8", "I8", "I32", "I64"];
    let kinds: [&[&str]; 8] = [
        &dtypes,
        &["BATCHED", "PACKED", "PAGED"],
        &["MASK_FULL", "MASK_CAUSAL", "MASK_WINDOW"],
        &["WINDOW_LEFT", "WINDOW_RIGHT"],
        &["PRECISION_GIVEN", "PRECISION_S8E4M3", "PRECISION_S8X16", "PRECISION_BITS8"],
        &["DESCALE_ONE", "DESCALE_PER_TENSOR", "DESCALE_PER_HEAD", "DESCALE_PER_ROW"],
        &["SM90", "SM80"],
        &["READ", "WRITE"],
    ];
    let statuses = statuses.into_iter().map(|(status, name)| (status as i32, name));
    let named = kinds.into_iter().flat_map(|names| (1..).zip(names.iter().copied()));
    statuses.chain(named).collect()
}

#[test]
fn structs_have_no_padding() {
    for Struct { name, bytes, fields } in structs() {
        let mut end = 0;
        for (field, place, bytes) in fields {
            assert_eq!(place, end, "{name}.{field} begins where the one before it ends");
            end += bytes;
        }
        assert_eq!(end, bytes, "{name} ends with its last field");
    }
}

#[test]
fn the_header_agrees_with_the_library() {
    let scratch = Scratch::new("agreement");
    let source = scratch.0.join("agreement.c");
    std::fs::write(&source, agreement()).expect("it can be written");
    for language in LANGUAGES {
        if let Some(mut compiler) = compiler(language) {
            run(compiler.args(["-fsyntax-only"]).arg(&source));
        }
    }
}

/// Compiles the program beside this file in a language.
fn program(scratch: &Path, language: (&str, &[&str])) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program.c");
    compiler::program(scratch, &source, language, &[])
}

#[test]
#[cfg(target_os = "linux")]
fn a_program_is_told_that_there_is_no_such_device() {
    let scratch = Scratch::new("program");
    for language in LANGUAGES {
        let Some(program) = program(&scratch.0, language) else {
            continue;
        };
        let output = run(Command::new(&program).env("LD_LIBRARY_PATH", &scratch.0));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = env!("CARGO_PKG_VERSION");
        let wanted = format!("version {version} {version}\nplan: status 4: no ");
        assert!(said.starts_with(&wanted), "{said}");
    }
}

/// What the program prints on the fake driver about a plan, but the line of the kernel.
#[cfg(target_os = "linux")]
const ON_THE_FAKE_DRIVER: &str = "\
forward
  q          bf16 batched, shape [2, 16, 1024, 64], strides [1048576, 64, 1024, 1]
  k          bf16 batched, shape [2, 4, 1024, 64], strides [262144, 64, 256, 1]
  v          bf16 batched, shape [2, 4, 1024, 64], strides [262144, 64, 256, 1]
  out        bf16 batched, shape [2, 16, 1024, 64], strides [1048576, 64, 1024, 1]
  mask       causal, bottom right
  scale      1/sqrt(64), by default
  lse        written
  precision  given, by default
  buffer     q: 2097152 bf16, read
  buffer     k: 524288 bf16, read
  buffer     v: 524288 bf16, read
  buffer     out: 2097152 bf16, write
  buffer     lse: 32768 f32, write
  workspace  0 bytes
entry fwd_sm90_bf16_d64_causal, noop 0, workspace 0
q: dtype 1, read, 2097152 elements, 4194304 bytes, aligned to 16
k: dtype 1, read, 524288 elements, 1048576 bytes, aligned to 16
v: dtype 1, read, 524288 elements, 1048576 bytes, aligned to 16
out: dtype 1, written, 2097152 elements, 4194304 bytes, aligned to 16
lse: dtype 3, written, 32768 elements, 131072 bytes, aligned to 4
without lse: the launch got no buffer for lse: pass one of 32768 f32 with the \
arguments' `lse`, or plan a request that does without
";

#[test]
#[cfg(target_os = "linux")]
fn a_program_plans_and_launches() {
    if !fulgurite::is_built(VARIANTS[0].entry) {
        eprintln!("skipped: the kernels are not built (`cargo xtask build`)");
        return;
    }
    let scratch = Scratch::new("launches");
    let paths = std::env::join_paths([fake::driver(), &scratch.0]).expect("names without colons");
    for language in LANGUAGES {
        let Some(program) = program(&scratch.0, language) else {
            continue;
        };
        let mut command = fake::command(program);
        let said = fake::said(command.arg("0").env("LD_LIBRARY_PATH", &paths));
        let kernel = "  kernel     fwd_sm90_bf16_d64_causal: 66 blocks of ";
        let (kernels, rest): (Vec<_>, Vec<_>) =
            said.lines().partition(|line| line.starts_with("  kernel"));
        assert!(kernels.len() == 1 && kernels[0].starts_with(kernel), "{said}");
        assert!((rest.join("\n") + "\n").ends_with(ON_THE_FAKE_DRIVER), "{said}");
    }
}
