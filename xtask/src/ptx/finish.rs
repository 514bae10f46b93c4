//! Checks entries, stamps them from the table of kernels, and makes each a module of its own.

use fulgurite_spec::Kernel;

use super::split::{Item, ItemKind, items, uses};

/// What the table of kernels says about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Name of the entry.
    pub entry: String,
    /// The `.target` that the PTX must have.
    pub target: String,
    /// Threads of a block, for `.maxntid`; without it ptxas ignores `setmaxnreg`.
    pub threads: u32,
    /// Blocks per multiprocessor, for `.minnctapersm`.
    pub blocks_per_sm: u32,
    /// Size of the one parameter in bytes.
    pub param_bytes: u32,
}

impl Stamp {
    /// What a kernel's PTX is stamped with.
    pub fn of(kernel: &Kernel) -> Stamp {
        Stamp {
            entry: kernel.entry.to_string(),
            target: kernel.arch.target().to_string(),
            threads: kernel.launch.threads,
            blocks_per_sm: kernel.launch.blocks_per_sm,
            param_bytes: kernel.param_bytes,
        }
    }
}

/// Alignment that rustc gives a parameter that holds tensor maps.
const COMPILED_PARAM_ALIGN: &str = ".align 16 ";

/// Alignment that TMA asks for.
const STAMPED_PARAM_ALIGN: &str = ".align 64 ";

/// One finished PTX text for each stamp, in the order of the stamps.
///
/// # Errors
/// One line for every broken rule: an entry that is missing or surplus, an external function, a
/// call, local memory, a parameter list other than one parameter of the stamped size, another
/// target, launch bounds that are already there.
pub fn modules(ptx: &str, stamps: &[Stamp]) -> Result<Vec<String>, Vec<String>> {
    let items = items(ptx).map_err(|problem| vec![problem])?;
    let mut problems = surplus(&items, stamps);
    let mut modules = Vec::new();
    for stamp in stamps {
        let entry =
            items.iter().find(|item| item.kind == ItemKind::Entry && item.name == stamp.entry);
        match entry {
            None => problems.push(format!("{}: the compiler made no such entry", stamp.entry)),
            Some(entry) => match module(&items, entry, stamp) {
                Ok(module) => modules.push(module),
                Err(found) => problems.extend(found),
            },
        }
    }
    if problems.is_empty() { Ok(modules) } else { Err(problems) }
}

/// External functions, and entries that no stamp names.
fn surplus(items: &[Item], stamps: &[Stamp]) -> Vec<String> {
    let mut problems = Vec::new();
    for item in items {
        match item.kind {
            ItemKind::ExternFunction => problems.push(format!(
                "external function `{}`: a function of another crate was not inlined \
                 (mark it #[inline(always)]), or a panicking path is left",
                item.name
            )),
            ItemKind::Entry if !stamps.iter().any(|stamp| stamp.entry == item.name) => problems
                .push(format!(
                    "{}: the compiler made this entry, but it is no kernel of this family",
                    item.name
                )),
            _ => {}
        }
    }
    problems
}

fn module(items: &[Item], entry: &Item, stamp: &Stamp) -> Result<String, Vec<String>> {
    let mut problems = body_problems(entry);
    let stamped = stamped(entry, stamp).unwrap_or_else(|problem| {
        problems.push(problem);
        String::new()
    });
    let header: String = items
        .iter()
        .filter(|item| item.kind == ItemKind::Header)
        .map(|item| item.text.as_str())
        .collect();
    if !uses(&header, &stamp.target) {
        let header = header.replace('\n', " ");
        problems.push(format!("target is `{header}`, expected `.target {}`", stamp.target));
    }
    if problems.is_empty() {
        Ok(format!("{header}{}{stamped}", data_of(items, entry)))
    } else {
        Err(problems.into_iter().map(|problem| format!("{}: {problem}", stamp.entry)).collect())
    }
}

/// The variables that an entry uses, also through initialisers of others, in their order.
fn data_of(items: &[Item], entry: &Item) -> String {
    let mut used = vec![false; items.len()];
    let mut open = vec![entry];
    while let Some(user) = open.pop() {
        for (index, item) in items.iter().enumerate() {
            if item.kind == ItemKind::Data && !used[index] && uses(&user.text, &item.name) {
                used[index] = true;
                open.push(item);
            }
        }
    }
    items.iter().zip(&used).filter(|(_, used)| **used).map(|(item, _)| &*item.text).collect()
}

/// Instructions that an entry must not have.
fn body_problems(entry: &Item) -> Vec<String> {
    let mut problems = Vec::new();
    let words = || {
        entry.text.split(|c: char| c.is_whitespace() || matches!(c, ';' | ',' | '[' | ']' | '('))
    };
    if let Some(word) = words().find(|word| is_local(word)) {
        problems.push(format!(
            "uses local memory (`{word}`): an array is indexed by a value that is not a constant, \
             or an address of a variable is taken"
        ));
    }
    if let Some(line) = entry.text.lines().find(|line| {
        line.split_whitespace().any(|word| word == "call" || word.starts_with("call."))
    }) {
        problems.push(format!("calls a function (`{}`): everything must be inlined", line.trim()));
    }
    problems
}

fn is_local(word: &str) -> bool {
    word.starts_with("__local_depot") || word.split('.').skip(1).any(|part| part == "local")
}

/// The entry with its launch bounds and parameter alignment.
fn stamped(entry: &Item, stamp: &Stamp) -> Result<String, String> {
    let Some((head, body)) = entry.text.split_once('{') else {
        return Err("has no body".to_string());
    };
    if head.contains(".maxntid") || head.contains(".reqntid") {
        return Err("has launch bounds already; they come from the launch table".to_string());
    }
    let mut parts = head.splitn(2, '(');
    let (name, list) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Some((list, directives)) = list.rsplit_once(')') else {
        return Err("has no parameter list".to_string());
    };
    let size = format!("_param_0[{}]", stamp.param_bytes);
    if list.contains(',') || !list.trim_end().ends_with(&size) {
        let list = list.trim();
        return Err(format!(
            "takes `{list}`, expected one parameter of {} bytes",
            stamp.param_bytes
        ));
    }
    if !list.contains(COMPILED_PARAM_ALIGN) {
        let list = list.trim();
        return Err(format!("takes `{list}`, expected `{COMPILED_PARAM_ALIGN}`"));
    }
    let list = list.replace(COMPILED_PARAM_ALIGN, STAMPED_PARAM_ALIGN);
    let directives = directives.trim_start_matches('\n');
    Ok(format!(
        "{name}({list})\n{directives}.maxntid {}, 1, 1\n.minnctapersm {}\n{{{body}",
        stamp.threads, stamp.blocks_per_sm
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(entry: &str) -> Stamp {
        Stamp {
            entry: entry.to_string(),
            target: "sm_90a".to_string(),
            threads: 384,
            blocks_per_sm: 1,
            param_bytes: 464,
        }
    }

    fn ptx(body_a: &str) -> String {
        format!(
            ".version 8.0\n.target sm_90a\n.address_size 64\n\
             .extern .shared .align 1024 .b8 dynsmem[];\n\
             .global .align 4 .b8 INNER[4] = {{3, 0, 0, 0}};\n\
             .global .align 8 .u64 OUTER[1] = {{INNER}};\n\
             .visible .func handler()\n{{\n\tret;\n}}\n\
             .visible .entry fwd_a(\n\t.param .align 16 .b8 fwd_a_param_0[464]\n)\n\
             {{\n\tmov.u32 %r2, dynsmem;\n{body_a}\tret;\n}}\n\
             .visible .entry fwd_b(\n\t.param .align 16 .b8 fwd_b_param_0[464]\n)\n\
             {{\n\tmov.b64 %rd2, OUTER;\n\tret;\n}}\n"
        )
    }

    fn problems(ptx: &str, stamps: &[Stamp]) -> String {
        modules(ptx, stamps).expect_err("a rule is broken").join("\n")
    }

    #[test]
    fn every_entry_becomes_a_stamped_module() {
        let modules = modules(&ptx(""), &[stamp("fwd_b"), stamp("fwd_a")]).expect("all is well");
        assert_eq!(
            modules[1],
            ".version 8.0\n.target sm_90a\n.address_size 64\n\
             .extern .shared .align 1024 .b8 dynsmem[];\n\
             .visible .entry fwd_a(\n\t.param .align 64 .b8 fwd_a_param_0[464]\n)\n\
             .maxntid 384, 1, 1\n.minnctapersm 1\n\
             {\n\tmov.u32 %r2, dynsmem;\n\tret;\n}\n"
        );
        assert!(modules[0].contains("INNER[4]") && modules[0].contains("OUTER[1]"));
        assert!(!modules[0].contains("dynsmem"), "what an entry does not use stays out");
    }

    #[test]
    fn missing_and_surplus_entries_are_refused() {
        let found = problems(&ptx(""), &[stamp("fwd_a"), stamp("fwd_c")]);
        assert!(found.contains("fwd_c: the compiler made no such entry"), "{found}");
        assert!(found.contains("fwd_b: the compiler made this entry"), "{found}");
    }

    #[test]
    fn local_memory_is_refused() {
        for body in
            ["\t.local .align 8 .b8 \t__local_depot0[272];\n", "\tst.local.b32 [%rd1], %r1;\n"]
        {
            let found = problems(&ptx(body), &[stamp("fwd_a"), stamp("fwd_b")]);
            assert!(found.starts_with("fwd_a: uses local memory"), "{found}");
        }
    }

    #[test]
    fn calls_and_external_functions_are_refused() {
        let call = "\tcall.uni \n\thelper, \n\t(\n\tparam0\n\t);\n";
        let found = problems(
            &format!("{}.extern .func helper\n(\n\t.param .b32 x\n);\n", ptx(call)),
            &[stamp("fwd_a"), stamp("fwd_b")],
        );
        assert!(found.contains("external function `helper`"), "{found}");
        assert!(found.contains("fwd_a: calls a function"), "{found}");
    }

    #[test]
    fn another_parameter_list_is_refused() {
        let stamps = [stamp("fwd_a"), stamp("fwd_b")];
        let smaller = ptx("").replace("fwd_a_param_0[464]", "fwd_a_param_0[460]");
        assert!(problems(&smaller, &stamps).contains("fwd_a: takes"));
        let two = ptx("")
            .replace("fwd_a_param_0[464]", "fwd_a_param_0[464],\n\t.param .b64 fwd_a_param_1");
        assert!(problems(&two, &stamps).contains("expected one parameter of 464 bytes"));
        let loose = ptx("").replace(".align 16 .b8 fwd_b", ".align 8 .b8 fwd_b");
        assert!(problems(&loose, &stamps).contains("fwd_b: takes"));
    }

    #[test]
    fn another_target_and_other_bounds_are_refused() {
        let stamps = [stamp("fwd_a"), stamp("fwd_b")];
        let target = ptx("").replace("sm_90a", "sm_90");
        assert!(problems(&target, &stamps).contains("expected `.target sm_90a`"));
        let bounds = ptx("").replacen("464]\n)\n", "464]\n)\n.maxntid 128, 1, 1\n", 1);
        assert!(problems(&bounds, &stamps).contains("fwd_a: has launch bounds already"));
    }
}
