//! The figures as a picture (SVG): a panel for each size and direction, which has a scale of its own.

use std::fmt::Write;

use crate::Figures;
use crate::frames::pieces;

const WIDTH: usize = 300;
const HEIGHT: usize = 130;
const TOP: usize = 56;
const LEFT: usize = 20;
/// Of the longest bar of a panel.
const LONGEST: f64 = 130.0;
/// What the bars are, and their colours.
const BARS: [(&str, &str); 3] = [("bare loop", "#9aa0a6"), ("virtnet", "#0072b2"), ("DPDK", "#e69f00")];

pub(crate) fn svg(sizes: &[(usize, [Figures; 2])]) -> String {
    let (width, height) = (2 * LEFT + WIDTH * sizes.len(), TOP + 2 * HEIGHT + 10);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"16\">Nanoseconds of CPU a packet</text>\n"
    );
    for (column, (size, directions)) in sizes.iter().enumerate() {
        for (row, (figures, direction)) in directions.iter().zip(["guest to TAP", "TAP to guest"]).enumerate()
        {
            let (x, y) = (LEFT + column * WIDTH, TOP + row * HEIGHT);
            let frames =
                if pieces(*size) > 1 { format!(" (DPDK: {} frames)", pieces(*size)) } else { String::new() };
            panel(&mut svg, (x, y), &format!("{size} B, {direction}{frames}"), figures);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, (x, y): (usize, usize), title: &str, figures: &Figures) {
    let values = [Some(figures.raw), Some(figures.function), figures.dpdk];
    let most = values.iter().flatten().copied().fold(1.0, f64::max);
    // Writing to a string does not fail.
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{}\" font-weight=\"bold\">{title}</text>", y + 14);
    let shown = BARS.iter().zip(values).filter_map(|(bar, value)| Some((bar, value?)));
    for (index, ((name, colour), value)) in shown.enumerate() {
        let (top, length) = (y + 24 + index * 28, (value / most * LONGEST).round());
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{}\">{name}</text>\
             <rect x=\"{}\" y=\"{top}\" width=\"{length}\" height=\"20\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{}\">{value:.0}</text>",
            top + 15,
            x + 75,
            (x + 81) as f64 + length,
            top + 15,
        );
    }
}
