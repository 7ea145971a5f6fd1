//! Pictures of curves, as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 48.0;
/// Told apart by those who see fewer colours, too (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// A curve and its name.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// One picture.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) across: &'static str,
    pub(crate) up: &'static str,
    /// Whether each step to the right is ten times as much.
    pub(crate) tenfold: bool,
    /// The values at the foot and the head.
    pub(crate) between: (f64, f64),
    pub(crate) lines: Vec<Line>,
    /// A moment at which something happens.
    pub(crate) marks: Vec<(f64, &'static str)>,
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Plot {
    fn span(&self) -> (f64, f64) {
        let xs = self.lines.iter().flat_map(|line| line.points.iter().map(|point| point.0));
        let (least, most) = xs.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        if !least.is_finite() || least >= most {
            return (0.0, 1.0);
        }
        if self.tenfold {
            return (10f64.powf(least.max(1e-3).log10().floor()), 10f64.powf(most.log10().ceil()));
        }
        (0.0, most)
    }

    /// The picture.
    pub(crate) fn svg(&self) -> String {
        let (least, most) = self.span();
        let share = |x: f64| {
            if self.tenfold {
                (x.max(least) / least).log10() / (most / least).log10()
            } else {
                (x - least) / (most - least)
            }
        };
        let (foot, head) = self.between;
        let x = |value: f64| LEFT + share(value) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| {
            HEIGHT - BOTTOM - (value.clamp(foot, head) - foot) / (head - foot) * (HEIGHT - TOP - BOTTOM)
        };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let text = |svg: &mut String, x: f64, y: f64, anchor: &str, text: &str| {
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
                escape(text)
            );
        };
        text(&mut svg, WIDTH / 2.0, 18.0, "middle", &self.title);
        text(&mut svg, WIDTH / 2.0, HEIGHT - 8.0, "middle", self.across);
        text(&mut svg, 8.0, TOP - 6.0, "start", self.up);
        for step in 0..=4 {
            let value = foot + (head - foot) * f64::from(step) / 4.0;
            let at = y(value);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>",
                WIDTH - RIGHT
            );
            text(&mut svg, LEFT - 6.0, at + 4.0, "end", &short(value));
        }
        for value in self.ticks(least, most) {
            text(&mut svg, x(value), HEIGHT - BOTTOM + 16.0, "middle", &short(value));
        }
        for (at, name) in &self.marks {
            let _ = writeln!(
                svg,
                "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{1}\" stroke=\"#888\" stroke-dasharray=\"4 3\"/>",
                x(*at),
                HEIGHT - BOTTOM
            );
            text(&mut svg, x(*at) + 3.0, HEIGHT - BOTTOM - 5.0, "start", name);
        }
        for (at, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let finite = line.points.iter().filter(|point| point.1.is_finite());
            let points: Vec<String> = finite.map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                points.join(" ")
            );
            let row = HEIGHT - BOTTOM - 22.0 - 15.0 * (self.lines.len() - 1 - at) as f64;
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{row:.1}\" text-anchor=\"end\" fill=\"{colour}\">{}</text>",
                WIDTH - RIGHT - 6.0,
                escape(&line.name)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn ticks(&self, least: f64, most: f64) -> Vec<f64> {
        if self.tenfold {
            return std::iter::successors(Some(least), |value| Some(value * 10.0))
                .take_while(|value| *value <= most * 1.001)
                .collect();
        }
        (0..=6).map(|step| least + (most - least) * f64::from(step) / 6.0).collect()
    }
}

fn short(value: f64) -> String {
    if value >= 10.0 || value.fract().abs() < 1e-9 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_where_their_values_are() {
        let line = Line { name: "a < b".to_owned(), points: vec![(1.0, 0.0), (10.0, 50.0), (100.0, 100.0)] };
        let plot = Plot {
            title: "t".to_owned(),
            across: "x",
            up: "y",
            tenfold: true,
            between: (0.0, 100.0),
            lines: vec![line],
            marks: Vec::new(),
        };
        let svg = plot.svg();
        let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
        let (foot, half) = (HEIGHT - BOTTOM, TOP + (HEIGHT - TOP - BOTTOM) / 2.0);
        let points = format!("{LEFT:.1},{foot:.1} {middle:.1},{half:.1} {:.1},{TOP:.1}", WIDTH - RIGHT);
        assert!(svg.contains(&points), "{points} in {svg}");
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>\n"));
    }
}
