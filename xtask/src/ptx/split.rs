//! Cuts a PTX text into its top-level items, as far as the builder needs to know them.

/// One top-level item; `text` has neither blank lines nor lines that are only a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Its symbol; empty for a [`ItemKind::Header`].
    pub name: String,
    /// Its lines, each with a line end.
    pub text: String,
}

/// What a top-level item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// `.version`, `.target`, `.address_size`.
    Header,
    /// A kernel.
    Entry,
    /// A function with a body.
    Function,
    /// A function without a body.
    ExternFunction,
    /// A variable: `.global`, `.const`, `.extern .shared`.
    Data,
}

/// The code of a line, without its `//` comment and outer blanks.
pub fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code).trim()
}

/// The top-level items of a PTX text in their order; an item that does not end is an error.
pub fn items(ptx: &str) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    let mut text = String::new();
    let mut depth = 0_i32;
    for line in ptx.lines() {
        let code = code(line);
        if code.is_empty() {
            continue;
        }
        text.push_str(line.trim_end());
        text.push('\n');
        let opened = code.matches('{').count() as i32;
        let closed = code.matches('}').count() as i32;
        depth += opened - closed;
        let header = [".version", ".target", ".address_size"]
            .iter()
            .any(|directive| code.starts_with(directive));
        let ends = header || code.ends_with(';') || (closed > 0 && code.ends_with('}'));
        if depth == 0 && ends {
            items.push(item(std::mem::take(&mut text), header));
        }
    }
    if text.is_empty() {
        Ok(items)
    } else {
        Err(format!("the PTX ends inside: {}", text.lines().next().unwrap_or_default()))
    }
}

fn item(text: String, header: bool) -> Item {
    let kind = if header {
        ItemKind::Header
    } else if declares(&text, ".entry") {
        ItemKind::Entry
    } else if declares(&text, ".func") && !text.contains('{') {
        ItemKind::ExternFunction
    } else if declares(&text, ".func") {
        ItemKind::Function
    } else {
        ItemKind::Data
    };
    let name = match kind {
        ItemKind::Header => String::new(),
        ItemKind::Entry => name_after(&text, ".entry"),
        ItemKind::Function | ItemKind::ExternFunction => name_after(&text, ".func"),
        ItemKind::Data => {
            let declaration = text.split(['=', '[', ';']).next().unwrap_or_default();
            declaration.split_whitespace().last().unwrap_or_default().to_string()
        }
    };
    Item { kind, name, text }
}

/// Whether the declaration, before any body, has this directive.
fn declares(text: &str, directive: &str) -> bool {
    let declaration = text.split('{').next().unwrap_or_default();
    declaration.split_whitespace().any(|word| word == directive)
}

/// The symbol after a directive, past a list of return values in parentheses.
fn name_after(text: &str, directive: &str) -> String {
    let rest = text.split_once(directive).map_or("", |(_, rest)| rest).trim_start();
    let rest = match rest.strip_prefix('(') {
        Some(values) => values.split_once(')').map_or("", |(_, rest)| rest).trim_start(),
        None => rest,
    };
    rest.split(|c: char| c == '(' || c == ';' || c.is_whitespace())
        .next()
        .unwrap_or_default()
        .to_string()
}

/// Whether a PTX text uses a symbol as a whole word.
pub fn uses(text: &str, symbol: &str) -> bool {
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.');
    text.match_indices(symbol).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + symbol.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = "//
// Generated
.version 8.0
.target sm_90a
.address_size 64

.extern .shared .align 1024 .b8 dynsmem[];
	// .globl	handler
.global .align 4 .b8 TABLE[20] = {3, 0, 0, 0, 1};
.extern .func (.param .b32 func_retval0) helper
(
	.param .b32 helper_param_0
);

.visible .func handler(
	.param .b64 handler_param_0
)
.noreturn
{
$L__BB0_1:
	bra.uni 	$L__BB0_1;
}
.visible .entry fwd_a(
	.param .align 16 .b8 fwd_a_param_0[464]
)
{
	.reg .b64 	%rd<33>;
	// begin inline asm
	{ .reg .b64 t; mov.b64 t, fwd_a_param_0; } // note {
	// end inline asm
	ret;

}
";

    #[test]
    fn items_are_cut_and_named() {
        let items = items(PTX).expect("the text is whole");
        let found: Vec<_> = items.iter().map(|item| (item.kind, item.name.as_str())).collect();
        assert_eq!(
            found,
            [
                (ItemKind::Header, ""),
                (ItemKind::Header, ""),
                (ItemKind::Header, ""),
                (ItemKind::Data, "dynsmem"),
                (ItemKind::Data, "TABLE"),
                (ItemKind::ExternFunction, "helper"),
                (ItemKind::Function, "handler"),
                (ItemKind::Entry, "fwd_a"),
            ]
        );
        assert!(!items[7].text.contains("inline asm"), "comment lines go");
        assert!(items[7].text.contains("ret;\n}\n"));
    }

    #[test]
    fn cut_off_text_is_an_error() {
        let error = items(PTX.trim_end().trim_end_matches('}')).expect_err("no closing brace");
        assert!(error.contains("fwd_a"), "{error}");
    }

    #[test]
    fn symbols_are_whole_words() {
        assert!(uses("mov.u32 %r2, dynsmem;", "dynsmem"));
        assert!(!uses("mov.u32 %r2, dynsmem_2;", "dynsmem"));
        assert!(!uses("mov.u32 %r2, $dynsmem;", "dynsmem"));
    }
}
