//! The timeline as SVG.

use std::fmt::Write;

use crate::{Activity, Timeline};

/// Pixels: width of the whole, of the rows' names, height of a row, of what is above the rows.
const WIDTH: u64 = 1240;
const NAMES: u64 = 110;
const ROW: u64 = 44;
const HEADER: u64 = 80;

impl Activity {
    /// As in the pictures of the benchmark, where there is one.
    const fn color(self) -> &'static str {
        match self {
            Activity::Idle => "none",
            Activity::Loads => "#c8b26e",
            Activity::Waits => "#eeeeee",
            Activity::Turn => "#cfcfcf",
            Activity::Scores => "#406ea6",
            Activity::Output => "#7aa5cd",
            Activity::Softmax => "#d64a1f",
            Activity::Stores => "#629967",
        }
    }
}

impl Timeline {
    /// The picture: a row for each warpgroup, steps from left to right.
    pub fn svg(&self, title: &str) -> String {
        let height = HEADER + ROW * self.rows.len() as u64 + 30;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"16\">\n<rect width=\"100%\" height=\"100%\" \
             fill=\"white\"/>\n<text x=\"16\" y=\"30\" font-size=\"22\">{title}</text>\n"
        );
        let mut x = 16;
        for activity in Activity::SHOWN {
            let (color, name) = (activity.color(), activity.name());
            // Writing to a string does not fail.
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"46\" width=\"14\" height=\"14\" fill=\"{color}\"/>\
                 <text x=\"{}\" y=\"59\">{name}</text>",
                x + 20
            );
            x += 44 + 9 * name.chars().count();
        }
        let at = |step: u64| NAMES + (WIDTH - NAMES - 16) * step / self.steps.max(1);
        for (number, spans) in self.rows.iter().enumerate() {
            let top = HEADER + ROW * number as u64;
            let name = match number {
                0 => "producer".to_owned(),
                number => format!("consumer {number}"),
            };
            let _ = writeln!(svg, "<text x=\"16\" y=\"{}\">{name}</text>", top + 24);
            for (span, activity) in spans.iter().filter(|(_, it)| *it != Activity::Idle) {
                let (left, right) = (at(span.start), at(span.end));
                let _ = writeln!(
                    svg,
                    "<rect x=\"{left}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"/>",
                    top + 4,
                    (right - left).max(1),
                    ROW - 10,
                    activity.color()
                );
            }
        }
        let _ = writeln!(
            svg,
            "<text x=\"{NAMES}\" y=\"{}\" font-size=\"14\">steps of the emulator's scheduler, 0 to \
             {}: an order, no times</text>\n</svg>",
            height - 12,
            self.steps
        );
        svg
    }
}
