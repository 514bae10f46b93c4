//! The emulator's files are layers: none uses one that uses it, and what a type does is in its own
//! file. Read from the sources, so that a circle is noticed when it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Sources by the names of their modules, without comments.
type Sources = BTreeMap<String, String>;

/// The emulator's files, but `mod.rs`, which only lists them, and its tests.
fn emulator() -> Sources {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/emu");
    let mut sources = Sources::new();
    for entry in std::fs::read_dir(&directory).expect("the checkout is readable") {
        let path = entry.expect("the checkout is readable").path();
        let module = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|it| it == "rs") && !["mod", "tests"].contains(&&*module) {
            let text = std::fs::read_to_string(&path).expect("the checkout is readable");
            sources.insert(module, without_comments(&text));
        }
    }
    sources
}

fn without_comments(text: &str) -> String {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// The first name in `text`, if it starts with one.
fn name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The names that a path goes on with: one, or those of a list in braces.
fn next_names(text: &str) -> Vec<&str> {
    let Some(list) = text.strip_prefix('{') else {
        return vec![name(text)];
    };
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(list[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

/// The modules of the emulator that a source names.
fn used(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for path in ["super::", "crate::emu::"] {
        let ends = text.match_indices(path).map(|(at, _)| at + path.len());
        found.extend(ends.flat_map(|end| next_names(&text[end..])));
    }
    // A child module is used by its parent.
    let declared = text.lines().filter_map(|line| line.strip_prefix("mod "));
    found.extend(declared.filter(|line| line.ends_with(';')).map(name));
    found.remove("");
    found
}

/// A circle of modules that use each other in turn, or a module named that is none.
fn circle(sources: &Sources) -> Option<String> {
    let mut left: BTreeMap<&str, BTreeSet<&str>> =
        sources.iter().map(|(module, text)| (&**module, used(text))).collect();
    for (module, names) in &mut left {
        names.remove(module);
    }
    for (module, names) in &left {
        if let Some(other) = names.iter().find(|other| !sources.contains_key(**other)) {
            return Some(format!("{module} uses {other}, which is no file of the emulator"));
        }
    }
    // Takes away what uses nothing that is left.
    while let Some(module) =
        left.iter().find(|(_, names)| names.iter().all(|it| !left.contains_key(it)))
    {
        let module = *module.0;
        left.remove(module);
    }
    let mut way = vec![*left.keys().next()?];
    loop {
        let last = way[way.len() - 1];
        let next = *left[last].iter().find(|it| left.contains_key(**it)).expect("none is free");
        if let Some(start) = way.iter().position(|it| *it == next) {
            way.push(next);
            return Some(format!("a circle: {}", way[start..].join(" -> ")));
        }
        way.push(next);
    }
}

/// The type that a line opens an implementation of.
fn implemented(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("unsafe ").unwrap_or(line).strip_prefix("impl")?;
    let rest = match rest.strip_prefix('<') {
        Some(generics) => generics.split_once('>')?.1,
        None => rest,
    };
    let of = rest.split_once(" for ").map_or(rest, |(_, of)| of);
    Some(name(of.trim_start()))
}

fn declared(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let rest = line.strip_prefix("struct ").or_else(|| line.strip_prefix("enum "))?;
    Some(name(rest))
}

/// A type that is implemented in another file than its own.
fn scattered(sources: &Sources) -> Option<String> {
    let home = |of: &str| {
        sources.iter().find(|(_, text)| text.lines().filter_map(declared).any(|it| it == of))
    };
    for (module, text) in sources {
        let own: BTreeSet<&str> = text.lines().filter_map(declared).collect();
        for of in text.lines().filter_map(implemented).filter(|of| !own.contains(of)) {
            if let Some((home, _)) = home(of) {
                return Some(format!("{module} implements {of}, which is {home}'s"));
            }
        }
    }
    None
}

#[test]
fn the_emulator_is_layered() {
    let sources = emulator();
    assert!(sources.len() > 20 && used(&sources["block"]).contains("mbarrier"), "{sources:?}");
    assert_eq!(circle(&sources), None);
    assert_eq!(scattered(&sources), None);
}

#[test]
fn circles_and_scattered_types_are_found() {
    let sources = |texts: &[(&str, &str)]| -> Sources {
        texts.iter().map(|(module, text)| (module.to_string(), text.to_string())).collect()
    };
    let layered = [
        ("a", "use super::{b::{X, Y}, c};"),
        ("b", "use crate::emu::c::Z;\n\npub struct X;\nimpl X {"),
        ("c", "fn f() {}"),
    ];
    assert_eq!(circle(&sources(&layered)), None);
    assert_eq!(scattered(&sources(&layered)), None);
    let mut circular = layered;
    circular[2].1 = "fn f() { super::a::g() }";
    let found = circle(&sources(&circular)).expect("a, b and c use each other");
    assert!(found.contains("c -> a"), "{found}");
    let mut vague = layered;
    vague[2].1 = "use super::Fault;";
    assert_eq!(
        circle(&sources(&vague)).as_deref(),
        Some("c uses Fault, which is no file of the emulator")
    );
    let mut spread = layered;
    spread[0].1 = "use super::b::X;\nimpl<'a> From<u8> for X {";
    assert_eq!(scattered(&sources(&spread)).as_deref(), Some("a implements X, which is b's"));
}
