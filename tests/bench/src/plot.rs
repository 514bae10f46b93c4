//! The picture of a benchmark: a panel for each head dim and mask, bars over the lengths.

use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::measurement::{Measurement, OURS};

/// Width and height of one panel, and of the title and legend above all, in pixels.
const PANEL: (u32, u32) = (620, 330);
const HEADER: u32 = 70;

/// The font.
const FONT: &str = "sans-serif";

/// Ours first, then peers in the order of their names.
const COLORS: [RGBColor; 8] = [
    RGBColor(214, 74, 31),
    RGBColor(64, 110, 166),
    RGBColor(122, 165, 205),
    RGBColor(120, 120, 120),
    RGBColor(98, 153, 103),
    RGBColor(172, 202, 152),
    RGBColor(150, 120, 172),
    RGBColor(200, 178, 110),
];

/// What is drawn.
struct Picture<'a> {
    rows: Vec<&'a Measurement>,
    names: Vec<&'a str>,
    /// (head dim, causal) of each panel.
    panels: Vec<(usize, bool)>,
    title: &'a str,
}

/// Draws `<stem>.svg` of the forward calls among the measurements.
///
/// # Errors
/// A message if there is nothing to draw or the file cannot be written.
pub fn draw(stem: &Path, title: &str, measurements: &[Measurement]) -> Result<PathBuf, String> {
    let picture = Picture::of(title, measurements)?;
    let path = stem.with_extension("svg");
    picture
        .paint(SVGBackend::new(&path, picture.size()).into_drawing_area())
        .map_err(|error| format!("cannot draw {}: {error}", path.display()))?;
    Ok(path)
}

impl<'a> Picture<'a> {
    fn of(title: &'a str, measurements: &'a [Measurement]) -> Result<Picture<'a>, String> {
        let main = |row: &&Measurement| row.cell().is_some_and(|cell| cell.is_main());
        let rows: Vec<_> = measurements.iter().filter(main).collect();
        if rows.is_empty() {
            return Err("there is nothing to draw: no forward call of the grid".to_owned());
        }
        let mut names: Vec<&str> = rows.iter().map(|row| row.peer.as_str()).collect();
        names.sort_by_key(|name| (*name != OURS, *name));
        names.dedup();
        let mut panels: Vec<_> = rows.iter().map(|row| (row.hd, row.causal != 0)).collect();
        panels.sort_unstable();
        panels.dedup();
        Ok(Picture { rows, names, panels, title })
    }

    fn columns(&self) -> usize {
        self.panels.len().min(2)
    }

    fn size(&self) -> (u32, u32) {
        let (columns, rows) = (self.columns(), self.panels.len().div_ceil(self.columns()));
        (PANEL.0 * columns as u32, HEADER + PANEL.1 * rows as u32)
    }

    fn paint<B: DrawingBackend>(&self, area: DrawingArea<B, Shift>) -> Result<(), String> {
        let text = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
        area.fill(&WHITE).map_err(text)?;
        let (header, body) = area.split_vertically(HEADER);
        self.legend(&header).map_err(text)?;
        let rows = self.panels.len().div_ceil(self.columns());
        let areas = body.split_evenly((rows, self.columns()));
        for (area, panel) in areas.iter().zip(&self.panels) {
            self.panel(area, *panel).map_err(text)?;
        }
        area.present().map_err(text)
    }

    fn legend<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let font = |size| TextStyle::from((FONT, size).into_font());
        area.draw(&Text::new(self.title.to_owned(), (16, 10), font(22)))?;
        let mut x = 16;
        for (name, color) in self.names.iter().zip(COLORS.iter().cycle()) {
            area.draw(&Rectangle::new([(x, 46), (x + 14, 60)], color.filled()))?;
            area.draw(&Text::new((*name).to_owned(), (x + 20, 45), font(16)))?;
            x += 40 + 9 * name.len() as i32;
        }
        Ok(())
    }

    fn panel<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        (head_dim, causal): (usize, bool),
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let rows: Vec<_> = self
            .rows
            .iter()
            .copied()
            .filter(|row| (row.hd, row.causal != 0) == (head_dim, causal))
            .collect();
        let mut lengths: Vec<usize> = rows.iter().map(|row| row.seqlen).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let top = rows.iter().map(|row| row.tflops).fold(1.0, f64::max) * 1.15;
        let mask = if causal { "causal" } else { "full" };
        let mut chart = ChartBuilder::on(area)
            .caption(format!("head dim {head_dim}, {mask}"), (FONT, 17))
            .margin(10)
            .x_label_area_size(26)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..lengths.len() as f64, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .disable_x_axis()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .y_labels(6)
            .y_desc("TFLOP/s")
            .label_style((FONT, 14))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()?;
        let below = Pos::new(HPos::Center, VPos::Top);
        let plotting = chart.plotting_area();
        for (index, length) in lengths.iter().enumerate() {
            let label =
                if length % 1024 == 0 { format!("{}k", length / 1024) } else { length.to_string() };
            let (x, y) = plotting.map_coordinate(&(index as f64 + 0.5, 0.0));
            let (x0, y0) = area.get_base_pixel();
            let style = TextStyle::from((FONT, 14).into_font()).pos(below);
            area.draw(&Text::new(label, (x - x0, y - y0 + 6), style))?;
        }
        let above = Pos::new(HPos::Center, VPos::Bottom);
        let width = 0.84 / self.names.len() as f64;
        for row in rows {
            let place = lengths.iter().position(|length| *length == row.seqlen).unwrap_or(0);
            let series = self.names.iter().position(|name| *name == row.peer).unwrap_or(0);
            let left = place as f64 + 0.08 + width * series as f64;
            let corners = [(left, 0.0), (left + width * 0.94, row.tflops)];
            plotting.draw(&Rectangle::new(corners, COLORS[series % COLORS.len()].filled()))?;
            let size = if self.names.len() > 3 { 9 } else { 12 };
            let style = TextStyle::from((FONT, size).into_font()).pos(above);
            let number = format!("{:.0}", row.tflops);
            plotting.draw(&Text::new(number, (left + width * 0.47, row.tflops), style))?;
        }
        Ok(())
    }
}
