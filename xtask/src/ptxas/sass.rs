//! Counts in the machine code of one entry what its speed is reasoned with.

use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::process::capture;

/// Bytes of one instruction.
const INSTRUCTION_BYTES: u32 = 16;

/// What there is in the code of one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instructions, those left out that only fill the end of the code.
    pub instructions: u32,
    /// Moves from a register to a uniform one: each holds up the scheduler.
    pub r2ur: u32,
    /// Exponentials, logarithms and reciprocals.
    pub mufu: u32,
    /// Matrix products.
    pub hgmma: u32,
    /// Bytes of code, all that is loaded.
    pub code_bytes: u32,
}

/// Names of the counts, in their order, as lines of kept reports and the golden file have them.
pub const NAMES: [&str; 5] = ["instructions", "R2UR", "MUFU", "HGMMA", "code_bytes"];

/// How a kept report marks the line of its counts.
const MARK: &str = "SASS";

impl Counts {
    /// The numbers, in the order of [`NAMES`].
    pub fn numbers(&self) -> [u32; 5] {
        [self.instructions, self.r2ur, self.mufu, self.hgmma, self.code_bytes]
    }

    /// The counts of these numbers.
    pub fn from_numbers(numbers: [u32; 5]) -> Counts {
        let [instructions, r2ur, mufu, hgmma, code_bytes] = numbers;
        Counts { instructions, r2ur, mufu, hgmma, code_bytes }
    }

    /// Counts in what nvdisasm says of a file with one entry; none if there is no code in it.
    fn of_text(text: &str) -> Option<Counts> {
        let mut counts = Counts::default();
        for (address, opcode) in text.lines().filter_map(instruction) {
            counts.code_bytes = counts.code_bytes.max(address + INSTRUCTION_BYTES);
            counts.instructions += u32::from(opcode != "NOP");
            match opcode {
                "R2UR" => counts.r2ur += 1,
                "MUFU" => counts.mufu += 1,
                "HGMMA" => counts.hgmma += 1,
                _ => {}
            }
        }
        (counts.instructions > 0).then_some(counts)
    }

    /// The line for a kept report.
    pub fn line(&self) -> String {
        self.numbers().iter().fold(MARK.to_string(), |line, number| format!("{line} {number}"))
    }

    /// The counts of a kept report; none if it has none.
    pub fn of_report(text: &str) -> Option<Counts> {
        let line = text.lines().find_map(|line| line.strip_prefix(MARK))?;
        let numbers: Vec<u32> = line.split_whitespace().flat_map(str::parse).collect();
        Some(Counts::from_numbers(numbers.try_into().ok()?))
    }
}

/// Address and name of the instruction of a line, if it has one, as in
/// `/*00e0*/ @P2 MUFU.EX2 R3, R4 ;`.
fn instruction(line: &str) -> Option<(u32, &str)> {
    let (address, rest) = line.trim_start().strip_prefix("/*")?.split_once("*/")?;
    let address = u32::from_str_radix(address, 16).ok()?;
    let name = rest.split_whitespace().find(|word| !word.starts_with('@'))?;
    Some((address, name.split(['.', ';']).next()?))
}

/// Counts what is in a file that ptxas has written.
pub fn count(nvdisasm: &Path, cubin: &Path) -> Result<Counts> {
    let mut command = Command::new(nvdisasm);
    let output = capture("nvdisasm", command.arg("--print-code").arg(cubin))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Counts::of_text(&text).ok_or_else(|| Error::Unreadable {
        what: format!("what nvdisasm says of {}", cubin.display()),
        got: "no instruction".to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\t.section\t.text.fwd_a,\"ax\",@progbits
.text.fwd_a:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/               @P2 R2UR UR4, R3 ;
        /*0020*/              @!P0 MUFU.EX2 R5, R5 ;
        /*0030*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], RZ, !UPT ;
.L_x_1:
        /*0040*/                   R2UR UR5, R4 ;
        /*0050*/                   EXIT ;
        /*0060*/                   BRA `(.L_x_1);
        /*0070*/                   NOP;
";

    #[test]
    fn instructions_are_counted() {
        let counts = Counts::from_numbers([7, 2, 1, 1, 0x80]);
        assert_eq!(Counts::of_text(TEXT), Some(counts));
        assert_eq!(Counts::of_text("nvdisasm fatal"), None);
        assert_eq!(Counts::of_report(&format!("ptxas info\n{}\n", counts.line())), Some(counts));
        assert_eq!(Counts::of_report("ptxas info\n"), None);
    }
}
