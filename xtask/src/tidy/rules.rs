//! The rules, one function each; a problem is one line `path:line: text`.

use super::ratchet::Ratchet;
use super::source::Source;

/// Lines of a file.
const FILE_LINES: usize = 500;

/// Lines of a function.
const FUNCTION_LINES: usize = 70;

/// Characters of a line.
const LINE_CHARS: usize = 100;

/// Lines of the documents that are read first.
const DOCUMENT_LINES: [(&str, usize); 3] =
    [("README.md", 200), ("ARCHITECTURE.md", 300), ("CONTRIBUTING.md", 60)];

/// The only directory where instructions are written.
const ASM_DIRECTORY: &str = "kernels/gpu/src/ptx/";

/// Device programs; which lane holds which element is the device crate's business.
const KERNELS_DIRECTORY: &str = "kernels/src/";

/// Rules for every text: nothing in it may belong to one machine.
pub fn any_text(path: &str, text: &str) -> Vec<String> {
    // Put together, so that this file keeps the rule.
    let directories = ["work", "tmp", "root", "home"].map(|directory| format!("/{directory}/"));
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let starts_path = |at: usize| {
            !line[..at]
                .chars()
                .next_back()
                .is_some_and(|c| c.is_alphanumeric() || "._-}".contains(c))
        };
        let found = directories
            .iter()
            .find(|directory| line.match_indices(&***directory).any(|(at, _)| starts_path(at)));
        if let Some(directory) = found {
            let line = index + 1;
            problems.push(format!("{path}:{line}: `{directory}` is a path of one machine"));
        }
    }
    problems
}

/// What is read first is short.
pub fn document(path: &str, text: &str) -> Option<String> {
    let (_, limit) = DOCUMENT_LINES.iter().find(|(name, _)| *name == path)?;
    let count = text.lines().count();
    let problem =
        format!("{path}: {count} lines, at most {limit}: move detail to where it belongs");
    (count > *limit).then_some(problem)
}

/// Rules for Rust.
pub fn rust(path: &str, text: &str, ratchet: &mut Ratchet) -> Vec<String> {
    let source = Source::read(text);
    let mut problems = lengths(path, text, &source, ratchet);
    problems.extend(columns(path, text));
    problems.extend(assembly(path, &source));
    problems.extend(lanes(path, &source));
    problems.extend(comments(path, &source));
    problems
}

fn lengths(path: &str, text: &str, source: &Source, ratchet: &mut Ratchet) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(problem) = ratchet.judge(path, "-", text.lines().count(), FILE_LINES) {
        problems.push(format!("{path}: {problem}"));
    }
    for function in source.functions() {
        let found = ratchet.judge(path, &function.name, function.line_count, FUNCTION_LINES);
        if let Some(problem) = found {
            let line = function.line;
            problems.push(format!("{path}:{line}: function `{}`: {problem}", function.name));
        }
    }
    problems
}

fn columns(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let count = line.chars().count();
        if count > LINE_CHARS {
            let line = index + 1;
            problems.push(format!("{path}:{line}: {count} characters, at most {LINE_CHARS}"));
        }
    }
    problems
}

fn assembly(path: &str, source: &Source) -> Vec<String> {
    if path.starts_with(ASM_DIRECTORY) {
        return Vec::new();
    }
    lines_with(&source.code, |line| line.contains("asm!"))
        .map(|line| format!("{path}:{line}: `asm!` outside {ASM_DIRECTORY}"))
        .collect()
}

fn lanes(path: &str, source: &Source) -> Vec<String> {
    if !path.starts_with(KERNELS_DIRECTORY) {
        return Vec::new();
    }
    let has_lane = |line: &str| {
        let mut words = line.split(|c: char| !c.is_alphanumeric());
        words.any(|word| matches!(word.to_lowercase().as_str(), "lane" | "lanes"))
    };
    lines_with(&source.code, has_lane)
        .map(|line| format!("{path}:{line}: lane arithmetic belongs into kernels/gpu"))
        .collect()
}

fn lines_with(code: &str, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = usize> {
    code.lines().enumerate().filter(move |(_, line)| wanted(line)).map(|(index, _)| index + 1)
}

fn comments(path: &str, source: &Source) -> Vec<String> {
    // Put together, so that this file keeps the rule.
    let later =
        ["TO", "FIX"].map(|start| start.to_string() + if start == "TO" { "DO" } else { "ME" });
    let mut problems = Vec::new();
    for (line, comment) in &source.comments {
        if later.iter().any(|word| comment.contains(word.as_str())) {
            problems.push(format!("{path}:{line}: a note for later; open an issue instead"));
        }
        if is_code(comment) {
            problems.push(format!("{path}:{line}: commented-out code"));
        }
    }
    problems
}

/// Whether a comment looks like code: it ends as a statement or block does, and is not prose.
/// Documentation may show code.
fn is_code(comment: &str) -> bool {
    let documentation = ["///", "//!", "/*"].iter().any(|mark| comment.starts_with(mark));
    let text = comment.trim_start_matches('/').trim();
    let statement = text.ends_with(';') && text.contains(['=', '(', '[', '!']);
    let starts = ["let ", "fn ", "pub ", "use ", "if ", "for ", "while ", "loop ", "match ", "#["];
    let block = text.ends_with('{') || text == "}" || text == "});";
    let attribute = text.starts_with("#[") && text.ends_with(']');
    !documentation
        && (attribute
            || text == "}"
            || (block && starts.iter().any(|start| text.starts_with(start)))
            || (statement && !text.contains(". ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let mut ratchet = Ratchet::parse("").expect("an empty list");
        rust(path, text, &mut ratchet)
    }

    #[test]
    fn clean_text_has_no_problems() {
        let text = "//! Planes; see [`x`].\nfn f() { let plane = \"asm!\"; } // fast: ~3 ms\n";
        assert_eq!(found("kernels/src/a.rs", text), Vec::<String>::new());
    }

    #[test]
    fn assembly_is_only_allowed_in_its_directory() {
        let text = "fn f() {\n    asm!(\"ret;\");\n}\n";
        assert_eq!(found("kernels/gpu/src/ptx/a.rs", text), Vec::<String>::new());
        let problems = found("kernels/gpu/src/a.rs", text);
        assert!(problems[0].starts_with("kernels/gpu/src/a.rs:2: `asm!`"), "{problems:?}");
        assert_eq!(found("host/src/a.rs", "global_asm!();\n").len(), 1);
    }

    #[test]
    fn lanes_are_refused_in_kernels_only() {
        let text = "const X: u32 = lane_id() % 4;\n";
        assert_eq!(found("kernels/src/forward/a.rs", text).len(), 1);
        assert_eq!(found("kernels/gpu/src/frag.rs", text), Vec::<String>::new());
    }

    #[test]
    fn long_files_functions_and_lines_are_refused() {
        let file = "const X: u32 = 1;\n".repeat(FILE_LINES + 1);
        assert!(found("host/src/a.rs", &file)[0].contains("501 lines"));
        let function = format!("fn long() {{\n{}}}\n", "    x();\n".repeat(FUNCTION_LINES));
        assert!(found("host/src/a.rs", &function)[0].contains("function `long`: 72 lines"));
        let line = format!("const X: &str = \"{}\";\n", "x".repeat(LINE_CHARS));
        assert!(found("host/src/a.rs", &line)[0].contains("characters"));
    }

    #[test]
    fn commented_out_code_is_refused() {
        for comment in
            ["// let x = 1;", "// launch(a, b);", "// if x > 3 {", "// #[inline]", "// }"]
        {
            assert_eq!(found("host/src/a.rs", &format!("{comment}\n")).len(), 1, "{comment}");
        }
        for comment in ["/// let x = 1;", "// The wait is (almost) free; see above.", "// a = b"] {
            assert_eq!(found("host/src/a.rs", &format!("{comment}\n")).len(), 0, "{comment}");
        }
    }

    #[test]
    fn notes_for_later_are_refused() {
        let comment = format!("// {}: later\n", ["TO", "DO"].concat());
        assert_eq!(found("host/src/a.rs", &comment).len(), 1);
    }

    #[test]
    fn long_documents_are_refused() {
        for (name, limit) in DOCUMENT_LINES {
            assert_eq!(document(name, &"a line\n".repeat(limit)), None);
            let problem = document(name, &"a line\n".repeat(limit + 1)).expect("it is too long");
            assert!(problem.starts_with(&format!("{name}: {} lines", limit + 1)), "{problem}");
        }
        assert_eq!(document("kernels/README.md", &"a line\n".repeat(999)), None);
    }

    #[test]
    fn paths_of_a_machine_are_refused() {
        let planted = format!("# see /{}/x\n", "work");
        assert_eq!(any_text("README.md", &planted).len(), 1);
        assert_eq!(any_text("README.md", "see host/work/x and $HOME/tmp/x\n").len(), 0);
    }
}
