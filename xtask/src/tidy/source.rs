//! A Rust text taken apart as far as the rules need: code, comments, functions.

/// A Rust text, its comments apart from its code.
pub struct Source {
    /// The text with comments and the insides of literals made blank; lines stay where they are.
    pub code: String,
    /// Every comment with its line number (from 1) and its text, marks included.
    pub comments: Vec<(usize, String)>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Line of the word `fn`, from 1.
    pub line: usize,
    /// Lines from there to its closing brace.
    pub line_count: usize,
}

impl Source {
    /// Takes a text apart.
    pub fn read(text: &str) -> Source {
        let chars: Vec<char> = text.chars().collect();
        let mut source = Source { code: String::with_capacity(text.len()), comments: Vec::new() };
        let mut at = 0;
        let mut line = 1;
        while at < chars.len() {
            let (length, kind) = token(&chars[at..], source.code.chars().next_back());
            let token: String = chars[at..at + length].iter().collect();
            match kind {
                Kind::Code => source.code.push_str(&token),
                Kind::Comment | Kind::Literal => {
                    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
                    source.code.extend(token.chars().map(blank));
                }
            }
            if kind == Kind::Comment {
                source.comments.push((line, token.clone()));
            }
            line += token.matches('\n').count();
            at += length;
        }
        source
    }

    /// Every function with a body, also those inside others.
    pub fn functions(&self) -> Vec<Function> {
        let bytes = self.code.as_bytes();
        let mut functions = Vec::new();
        for (start, _) in self.code.match_indices("fn ") {
            if start > 0 && is_name(char::from(bytes[start - 1])) {
                continue;
            }
            let rest = &self.code[start + "fn ".len()..];
            let name: String = rest.chars().take_while(|&c| is_name(c) || c == '$').collect();
            let body = body_length(rest);
            if let (false, Some(length)) = (name.is_empty(), body) {
                functions.push(Function {
                    name,
                    line: self.code[..start].matches('\n').count() + 1,
                    line_count: rest[..length].matches('\n').count() + 1,
                });
            }
        }
        functions
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length and kind of what stands at the start of the text; `before` is the last code character.
fn token(chars: &[char], before: Option<char>) -> (usize, Kind) {
    let second = chars.get(1).copied();
    let in_name = before.is_some_and(is_name);
    match chars[0] {
        '/' if second == Some('/') => {
            let end = chars.iter().position(|&c| c == '\n').unwrap_or(chars.len());
            (end, Kind::Comment)
        }
        '/' if second == Some('*') => (block_comment(chars), Kind::Comment),
        '"' => (quoted(chars, '"'), Kind::Literal),
        'r' if !in_name && matches!(second, Some('"' | '#')) => raw_string(chars),
        // A lifetime has no closing quote after one character.
        '\'' if second == Some('\\') || chars.get(2) == Some(&'\'') => {
            (quoted(chars, '\''), Kind::Literal)
        }
        _ => (1, Kind::Code),
    }
}

fn block_comment(chars: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn quoted(chars: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// A raw string, or the one character `r` of a raw identifier.
fn raw_string(chars: &[char]) -> (usize, Kind) {
    let hashes = chars[1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(1 + hashes) != Some(&'"') {
        return (1, Kind::Code);
    }
    let closing: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = &chars[2 + hashes..];
    let end = body.windows(closing.len()).position(|window| window == closing);
    (end.map_or(chars.len(), |end| 2 + hashes + end + closing.len()), Kind::Literal)
}

/// Bytes up to the end of the body that follows a function's name; `None` if it has no body.
fn body_length(code: &str) -> Option<usize> {
    let mut round = 0_i32;
    let mut curly = 0_i32;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            ';' if round == 0 && curly == 0 => return None,
            '{' if round == 0 || curly > 0 => curly += 1,
            '}' if curly > 0 => {
                curly -= 1;
                if curly == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        if round < 0 {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_leave_the_code() {
        let source = Source::read(
            "let a = \"asm! \\\" //\"; // one {\n/* two /* deep */ { */ let b = '{';\n\
             let c = r#\"x \" {\"#; fn f<'a>(x: &'a str) {}\n",
        );
        assert!(!source.code.contains("asm!") && !source.code.contains("two"));
        assert!(source.code.contains("let b") && source.code.contains("<'a>(x: &'a str) {}"));
        assert_eq!(source.code.matches('{').count(), 1);
        assert_eq!(source.code.lines().count(), 3);
        let comments: Vec<_> = source.comments.iter().map(|(line, _)| *line).collect();
        assert_eq!(comments, [1, 2]);
    }

    #[test]
    fn functions_are_measured() {
        let source = Source::read(
            "trait T {\n    fn declared(x: [u8; 4]);\n}\n\
             fn one() {}\nfn three(x: [u8; 2]) {\n    if x { \"}\" }\n}\n",
        );
        assert_eq!(
            source.functions(),
            [
                Function { name: "one".to_string(), line: 4, line_count: 1 },
                Function { name: "three".to_string(), line: 5, line_count: 3 },
            ]
        );
    }
}
