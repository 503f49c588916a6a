//! Lines over axes, as SVG that takes its colours from the page.
//!
//! Input: named series of points. Output: a figure with its title, its keys and the picture. Invariants: at most
//! [`MOST_POINTS`] points of a series are drawn, the first and the last among them; the axes' numbers are round.

use std::fmt::Write;

use super::html::{figure, text};

/// Points of one line that are drawn at most.
const MOST_POINTS: usize = 400;

/// Points of one line up to which each says its value under the pointer.
const MOST_HINTS: usize = 120;

/// Colours that the page has.
pub const COLORS: usize = 8;

/// One line of a chart.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it shows.
    pub name: String,
    /// Its colour's number.
    pub color: usize,
    /// Whether it is broken into dashes.
    pub dashed: bool,
    /// Epochs and values, both finite, by epoch.
    pub points: Vec<(f64, f64)>,
}

/// The picture in its own units: width, height, and the space around the plane.
const SIZE: (f64, f64) = (400.0, 250.0);
const MARGIN: (f64, f64, f64, f64) = (8.0, 10.0, 30.0, 50.0);

/// How values stand on the vertical axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// By their differences.
    Linear,
    /// By their quotients, where they are positive and far apart.
    Fitting,
}

/// What is shown of one axis: its ends and its marks, in the axis's own units, and whether these are logarithms.
struct Axis {
    low: f64,
    high: f64,
    marks: Vec<f64>,
    is_logarithmic: bool,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let unit = if self.is_logarithmic { value.log10() } else { value };
        (unit - self.low) / (self.high - self.low)
    }
}

/// A figure of these lines over epochs; nothing where no line has a point.
pub fn chart(title: &str, series: &[Series], scale: Scale) -> String {
    let series: Vec<&Series> = series.iter().filter(|series| !series.points.is_empty()).collect();
    let points = || series.iter().flat_map(|series| &series.points);
    if points().next().is_none() {
        return String::new();
    }
    let last = points().map(|point| point.0).fold(0.0, f64::max);
    let across = Axis { low: 0.0, high: last, marks: epoch_marks(last), is_logarithmic: false };
    let up = upwards(points().map(|point| point.1), scale);
    let mut keys = String::new();
    let mut lines = String::new();
    for series in &series {
        let _ = writeln!(keys, "<li>{}{}</li>", swatch(series), text(&series.name));
        lines.push_str(&line(series, &across, &up));
    }
    let scale = if up.is_logarithmic { " <span class=\"dim small\">logarithmic</span>" } else { "" };
    let (width, height) = SIZE;
    format!(
        "<figure>\n<h3>{title}{scale}</h3>\n<ul class=\"keys\">{keys}</ul>\n\
         <svg class=\"chart\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title} over epochs\">\n{}{lines}</svg>\n\
         </figure>\n",
        axes(&across, &up),
        title = text(title)
    )
}

/// The vertical axis for these values: logarithmic where they are positive and far apart.
fn upwards(values: impl Iterator<Item = f64>, scale: Scale) -> Axis {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if scale == Scale::Fitting && low > 0.0 && high / low > 50.0 {
        let marks = logarithmic_marks(low, high);
        let margin = (high.log10() - low.log10()) * 0.04;
        return Axis { low: low.log10() - margin, high: high.log10() + margin, marks, is_logarithmic: true };
    }
    let margin = ((high - low) * 0.06).max(high.abs() * 1e-3).max(1e-9);
    let (low, high) = (low - margin, high + margin);
    Axis { low, high, marks: linear_marks(low, high, 5), is_logarithmic: false }
}

/// Round numbers of epochs, whole ones where there are two or more.
fn epoch_marks(last: f64) -> Vec<f64> {
    linear_marks(0.0, last, if last >= 2.0 { (last as usize).min(6) } else { 4 })
}

/// About `count` round numbers from `low` to `high`.
fn linear_marks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count as f64;
    if rough.is_nan() || rough <= 0.0 || rough.is_infinite() {
        return vec![low];
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step).ceil();
    let marks = (0..=2 * count).map(|number| (first + number as f64) * step);
    marks.take_while(|mark| *mark <= high + step * 1e-6).collect()
}

/// Powers of ten from `low` to `high`; where these are few, twice and five times them too; where many, fewer.
fn logarithmic_marks(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let digits: &[f64] = if last - first > 3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let stride = ((last - first) / 7 + 1) as usize;
    let powers = (first..=last).step_by(stride);
    let marks = powers.flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
    marks.filter(|mark| (low * 0.9..=high * 1.1).contains(mark)).collect()
}

/// The number of a mark, as long as its neighbours need.
fn mark_text(mark: f64, marks: &[f64]) -> String {
    let step = marks.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(f64::INFINITY, f64::min);
    match mark.abs() {
        zero if zero < step * 1e-6 => "0".to_string(),
        size if !(1e-4..1e5).contains(&size) => format!("{mark:.0e}"),
        _ if step >= 1.0 => format!("{mark:.0}"),
        _ => {
            let decimals = (-step.log10() - 1e-9).ceil().clamp(0.0, 6.0) as usize;
            format!("{mark:.decimals$}")
        }
    }
}

fn axes(across: &Axis, up: &Axis) -> String {
    let (top, right, bottom, left) = MARGIN;
    let (width, height) = SIZE;
    let (end, floor) = (width - right, height - bottom);
    let mut picture = String::new();
    for mark in &up.marks {
        let y = vertical(up, *mark);
        let own = if up.is_logarithmic { std::slice::from_ref(mark) } else { &up.marks[..] };
        let words = if up.is_logarithmic { power_text(*mark) } else { mark_text(*mark, own) };
        let _ = writeln!(
            picture,
            "<line class=\"rule\" x1=\"{left}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{words}</text>",
            left - 7.0,
            y + 3.5
        );
    }
    for mark in &across.marks {
        let x = horizontal(across, *mark);
        let _ = writeln!(
            picture,
            "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{floor}\" y2=\"{}\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            floor + 4.0,
            floor + 16.0,
            mark_text(*mark, &across.marks)
        );
    }
    let _ = writeln!(picture, "<line class=\"axis\" x1=\"{left}\" x2=\"{end}\" y1=\"{floor}\" y2=\"{floor}\"/>");
    let _ = writeln!(picture, "<text x=\"{end}\" y=\"{}\" text-anchor=\"end\">epoch</text>", height - 2.0);
    debug_assert!(top < floor);
    picture
}

/// A mark of a logarithmic axis.
fn power_text(mark: f64) -> String {
    match mark {
        usual if (1e-3..1e4).contains(&usual) => format!("{}", (usual * 1e6).round() / 1e6),
        other => format!("{other:.0e}"),
    }
}

fn horizontal(across: &Axis, value: f64) -> f64 {
    let (_, right, _, left) = MARGIN;
    let place = across.place(value);
    left + (SIZE.0 - right - left) * if place.is_finite() { place } else { 0.5 }
}

fn vertical(up: &Axis, value: f64) -> f64 {
    let (top, _, bottom, _) = MARGIN;
    SIZE.1 - bottom - (SIZE.1 - bottom - top) * up.place(value)
}

/// A line with its last point, and the values under the pointer where they are few.
fn line(series: &Series, across: &Axis, up: &Axis) -> String {
    let Series { name, color, dashed, points } = series;
    let color = color % COLORS;
    let stride = points.len().div_ceil(MOST_POINTS).max(1);
    let mut drawn: Vec<&(f64, f64)> = points.iter().step_by(stride).collect();
    if !(points.len() - 1).is_multiple_of(stride) {
        drawn.extend(points.last());
    }
    let place = |point: &(f64, f64)| (horizontal(across, point.0), vertical(up, point.1));
    let path: Vec<String> = drawn.iter().map(|point| place(point)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let dashes = if *dashed { " dashed" } else { "" };
    let mut picture = format!("<polyline class=\"line s{color}{dashes}\" points=\"{}\"/>\n", path.join(" "));
    if let Some(last) = drawn.last() {
        let (x, y) = place(last);
        let _ = writeln!(picture, "<circle class=\"f{color}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.75\"/>");
    }
    if drawn.len() <= MOST_HINTS {
        for point in drawn {
            let (x, y) = place(point);
            let words = format!("{name}, epoch {}: {}", (point.0 * 100.0).round() / 100.0, figure(point.1));
            let _ = writeln!(
                picture,
                "<circle class=\"hover\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\"><title>{}</title></circle>",
                text(words)
            );
        }
    }
    picture
}

fn swatch(series: &Series) -> String {
    let dashes = if series.dashed { " dashed" } else { "" };
    format!(
        "<svg viewBox=\"0 0 18 8\" aria-hidden=\"true\"><line class=\"line s{}{dashes}\" x1=\"1\" x2=\"17\" y1=\"4\" y2=\"4\"/></svg>",
        series.color % COLORS
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: impl IntoIterator<Item = (f64, f64)>) -> Series {
        Series { name: "valid <b>".into(), color: 9, dashed: false, points: points.into_iter().collect() }
    }

    #[test]
    fn marks_are_round_and_inside() {
        assert_eq!(linear_marks(0.0, 20.0, 6), [0.0, 5.0, 10.0, 15.0, 20.0]);
        let near = linear_marks(0.91, 0.99, 5);
        assert_eq!(
            near.iter().map(|mark| mark_text(*mark, &near)).collect::<Vec<_>>(),
            ["0.92", "0.94", "0.96", "0.98"]
        );
        assert_eq!(logarithmic_marks(0.01, 2.0), [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]);
        assert_eq!(logarithmic_marks(1e-9, 1.0).len(), 5);
        assert_eq!(linear_marks(1.0, 1.0, 5), [1.0]);
        assert_eq!((epoch_marks(3.0), epoch_marks(1.0).len()), (vec![0.0, 1.0, 2.0, 3.0], 3));
        assert_eq!([0.0, 5.0].map(|mark| mark_text(mark, &[0.0, 5.0])), ["0", "5"]);
    }

    #[test]
    fn a_point_is_where_its_value_is_on_the_axes() {
        let text = chart("loss", &[series([(1.0, 2.0), (2.0, 1.0)])], Scale::Fitting);
        let path = text.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a line");
        // Epoch 1 of 0 to 2 is half way from 50 to 390; 2 lies 0.06 of 1.12 below the top of 212 units below 8.
        assert_eq!(path, "220.0,19.4 390.0,208.6");
        assert!(text.contains("valid &lt;b&gt;, epoch 2: 1.0000") && text.contains("class=\"line s1\""), "{text}");
        assert!(!text.contains("logarithmic"));
    }

    #[test]
    fn far_apart_values_have_a_logarithmic_axis() {
        let text = chart("loss", &[series([(1.0, 100.0), (2.0, 0.01)])], Scale::Fitting);
        assert!(
            text.contains("logarithmic") && text.contains(">0.01</text>") && text.contains(">100</text>"),
            "{text}"
        );
    }

    #[test]
    fn a_line_of_any_length_has_few_points_and_its_last() {
        for length in [1u32, 400, 401, 12_345] {
            let text = chart("loss", &[series((1..=length).map(|epoch| (f64::from(epoch), 1.0)))], Scale::Fitting);
            let path = text.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a line");
            let points: Vec<&str> = path.split(' ').collect();
            assert!(points.len() <= MOST_POINTS + 1 && !text.contains("NaN"), "{length}: {}", points.len());
            assert!(points.last().is_some_and(|last| last.starts_with("390.0,")), "{path}");
        }
        assert_eq!(chart("loss", &[series([])], Scale::Fitting), "");
    }
}
