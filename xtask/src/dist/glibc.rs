//! Which C library a program needs.

/// The newest version of glibc whose symbols a program or library names, as in `[2, 34]`: the
/// loader refuses to start it with an older one.
pub fn needed(content: &[u8]) -> Option<[u32; 2]> {
    let mark = b"GLIBC_";
    let version = |at: usize| {
        let text = &content[at + mark.len()..];
        let end = text.iter().position(|byte| *byte == 0)?;
        let mut numbers = std::str::from_utf8(&text[..end]).ok()?.split('.');
        Some([numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?])
    };
    let places = content.windows(mark.len()).enumerate().filter(|(_, bytes)| *bytes == mark);
    places.filter_map(|(at, _)| version(at)).max()
}

/// The same in words.
pub fn text(needed: Option<[u32; 2]>) -> String {
    needed.map_or_else(
        || "the C library of the machine that built it".to_string(),
        |[major, minor]| format!("glibc {major}.{minor} or later (`ldd --version` tells)"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_newest_glibc_counts() {
        let content = b"\x7fELF\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0GLIBC_2.";
        assert_eq!(needed(content), Some([2, 34]));
        assert_eq!(needed(b"static"), None);
        assert!(text(Some([2, 34])).contains("glibc 2.34 or later"));
    }

    #[test]
    fn the_glibc_of_this_program_is_read() {
        let own = std::env::current_exe().and_then(fs::read).expect("it can be read");
        if cfg!(target_env = "gnu") {
            assert!(needed(&own).is_some_and(|version| version >= [2, 17]));
        }
    }
}
