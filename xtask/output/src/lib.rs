//! What becomes of output that nobody reads.

/// The status that shells give to a program that wrote to a closed pipe: 128 and SIGPIPE.
pub const CLOSED_PIPE: i32 = 141;

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
