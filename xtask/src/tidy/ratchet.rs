//! The list of what may be longer than the rules say; it can only shrink.

/// One allowance: `PATH NAME LINES`, the name being a function's, or `-` for the whole file.
struct Allowance {
    path: String,
    name: String,
    line_count: usize,
    used: bool,
}

/// All allowances.
pub struct Ratchet {
    allowances: Vec<Allowance>,
}

impl Ratchet {
    /// Reads the list; `Err` is the line that is not an allowance.
    pub fn parse(text: &str) -> Result<Ratchet, String> {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let allowances = lines
            .map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
                [path, name, count] => {
                    count.parse().map_err(|_| line.to_string()).map(|count| Allowance {
                        path: path.to_string(),
                        name: name.to_string(),
                        line_count: count,
                        used: false,
                    })
                }
                _ => Err(line.to_string()),
            })
            .collect::<Result<_, _>>()?;
        Ok(Ratchet { allowances })
    }

    /// Why a length is not allowed, if it is not: over the limit without an allowance or over
    /// it, or below an allowance that should shrink with it.
    pub fn judge(
        &mut self,
        path: &str,
        name: &str,
        line_count: usize,
        limit: usize,
    ) -> Option<String> {
        let allowance = self
            .allowances
            .iter_mut()
            .find(|allowance| allowance.path == path && allowance.name == name);
        let Some(allowance) = allowance else {
            return (line_count > limit)
                .then(|| format!("{line_count} lines, at most {limit} are allowed"));
        };
        allowance.used = true;
        let allowed = allowance.line_count;
        if line_count > allowed {
            Some(format!("{line_count} lines, its allowance is {allowed}"))
        } else if line_count < allowed {
            Some(format!("{line_count} lines: lower its allowance of {allowed} in the ratchet"))
        } else {
            None
        }
    }

    /// Allowances for what is no longer there.
    pub fn unused(&self) -> Vec<String> {
        let unused = self.allowances.iter().filter(|allowance| !allowance.used);
        unused
            .map(|allowance| {
                format!("{}: `{}` is in the ratchet but gone", allowance.path, allowance.name)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowances_hold_and_shrink() {
        let mut ratchet = Ratchet::parse("# why\na.rs run 90\nb.rs - 600\n").expect("a list");
        assert_eq!(ratchet.judge("a.rs", "run", 90, 70), None);
        assert!(ratchet.judge("a.rs", "run", 91, 70).is_some());
        assert!(ratchet.judge("a.rs", "run", 80, 70).expect("it shrank").contains("lower"));
        assert!(ratchet.judge("a.rs", "other", 71, 70).is_some());
        assert_eq!(ratchet.judge("a.rs", "other", 70, 70), None);
        assert_eq!(ratchet.unused(), ["b.rs: `-` is in the ratchet but gone"]);
        assert_eq!(Ratchet::parse("a.rs run").err().as_deref(), Some("a.rs run"));
    }
}
