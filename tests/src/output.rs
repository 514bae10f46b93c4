//! What the programs print: how wide, and what becomes of it when nobody reads.

/// Columns of what is printed for people, at most.
pub const WIDTH: usize = 100;

/// A text in lines of at most `width` characters, broken at spaces; a longer word stays whole.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                *line += " ";
                *line += word;
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The status that shells give to a program that wrote to a closed pipe: 128 and SIGPIPE.
const CLOSED_PIPE: i32 = 141;

/// Lets the process end without a word when its output is closed, as `| head` does: Rust's print
/// macros panic there. Children keep the signals that they would have.
pub fn end_if_closed() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to std") && text.contains("Broken pipe") {
            std::process::exit(CLOSED_PIPE);
        }
        report(panic);
    }));
}
