//! The loss curve as a picture.
//!
//! Input: the losses of epochs, one after the other. Output: SVG text. Invariants: a run of any length gives a readable
//! picture at the same cost; what is drawn depends on the epochs alone, not on where a run was interrupted; values that
//! are not finite, and places that no epoch has, are left out.

use plotters::prelude::*;

use crate::settings::SplitName;

/// Points from which every other one is left out.
const MOST_POINTS: usize = 512;

/// Numbers from here on are no part of a picture: the widths of their ranges would overflow.
const GREATEST: f64 = 1e150;

/// The losses after some passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Epochs done.
    pub epoch: f64,
    /// Losses by split: train, valid, test.
    pub losses: [Option<f64>; 3],
}

/// The points so far: of a long run every second one, every fourth, and so on, and always the last.
#[derive(Clone, Debug)]
pub struct Curve {
    kept: Vec<Point>,
    /// The last point, unless it is kept.
    last: Option<Point>,
    seen: u64,
    stride: u64,
}

impl Default for Curve {
    fn default() -> Self {
        Self { kept: Vec::new(), last: None, seen: 0, stride: 1 }
    }
}

impl Curve {
    /// Adds the point of a pass.
    pub fn push(&mut self, point: Point) {
        self.last = Some(point);
        if self.seen.is_multiple_of(self.stride) {
            self.kept.extend(self.last.take());
        }
        self.seen += 1;
        if self.kept.len() == MOST_POINTS {
            let mut number = 0usize;
            self.kept.retain(|_| {
                number += 1;
                !number.is_multiple_of(2)
            });
            self.stride *= 2;
            // Of an even number the newest is left out.
            self.last = Some(point);
        }
    }

    /// The points that are drawn.
    fn points(&self) -> impl Iterator<Item = &Point> {
        self.kept.iter().chain(&self.last)
    }

    /// An SVG of the splits' losses over epochs.
    ///
    /// # Errors
    /// What the plotting library reports, as text.
    pub fn svg(&self, title: &str) -> Result<String, String> {
        let series = [0, 1, 2].map(|split: usize| -> Vec<(f64, f64)> {
            let value = |point: &Point| point.losses[split].filter(|loss| loss.abs() < GREATEST);
            let places = self.points().filter(|point| (0.0..GREATEST).contains(&point.epoch));
            places.filter_map(|point| Some((point.epoch, value(point)?))).collect()
        });
        let points = series.iter().flatten();
        let (mut low, mut high) = points.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(p.1), h.max(p.1)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let margin = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-9);
        let last = series.iter().flatten().map(|point| point.0).fold(1e-9, f64::max);
        let mut text = String::new();
        {
            let root = SVGBackend::with_string(&mut text, (720, 420)).into_drawing_area();
            draw(&root, title, (0.0..last, (low - margin)..(high + margin)), &series)
                .map_err(|problem| problem.to_string())?;
            root.present().map_err(|problem| problem.to_string())?;
        }
        Ok(text)
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Range = std::ops::Range<f64>;

fn draw(
    root: &Area<'_>,
    title: &str,
    (across, up): (Range, Range),
    series: &[Vec<(f64, f64)>; 3],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let text = |problem: DrawingAreaErrorKind<_>| problem.to_string();
    root.fill(&WHITE).map_err(text)?;
    let mut chart = ChartBuilder::on(root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(across, up)
        .map_err(text)?;
    chart.configure_mesh().x_desc("epoch").y_desc("loss").light_line_style(WHITE).draw().map_err(text)?;
    let splits = [
        (SplitName::Train, RGBColor(31, 119, 180)),
        (SplitName::Valid, RGBColor(255, 127, 14)),
        (SplitName::Test, RGBColor(44, 160, 44)),
    ];
    for ((name, color), points) in splits.into_iter().zip(series) {
        if points.is_empty() {
            continue;
        }
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(2))
            .map_err(text)?
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(losses: impl IntoIterator<Item = f64>) -> Curve {
        let mut curve = Curve::default();
        for (number, loss) in losses.into_iter().enumerate() {
            curve.push(Point { epoch: (number + 1) as f64, losses: [Some(loss), Some(loss * 1.1), None] });
        }
        curve
    }

    #[test]
    fn a_run_gives_a_picture_with_a_line_for_each_split_that_was_measured() {
        let text = curve([2.0, 1.0]).svg("digits").expect("drawn");
        assert!(text.starts_with("<svg") && text.contains("train") && text.contains("valid"), "{text}");
        assert!(!text.contains("test"));
    }

    #[test]
    fn values_that_are_not_finite_are_left_out() {
        assert!(!curve([f64::NAN, 1.0]).svg("digits").expect("drawn").contains("NaN"));
        curve([]).svg("nothing").expect("an empty run is drawn too");
    }

    #[test]
    fn damaged_places_and_enormous_losses_do_no_harm() {
        for (epoch, loss) in [(f64::NAN, 1.0), (-1e9, 1.0), (1e300, 1.0), (2.0, 1e308), (2.0, -1e308), (1e-300, 0.5)] {
            let mut curve = curve([2.0]);
            curve.push(Point { epoch, losses: [Some(loss), None, None] });
            let text = curve.svg("damaged").expect("drawn");
            assert!(text.contains("<polyline"), "epoch {epoch}, loss {loss}");
        }
    }

    #[test]
    fn a_run_of_any_length_has_few_points_from_its_first_to_its_last() {
        for length in [511, 512, 513, 20_000, 20_001] {
            let curve = curve((0..length).map(f64::from));
            let points: Vec<&Point> = curve.points().collect();
            assert!((MOST_POINTS / 2..=MOST_POINTS).contains(&points.len()), "{length}: {}", points.len());
            assert_eq!((points[0].epoch, points[points.len() - 1].epoch), (1.0, f64::from(length)));
            assert!(points.windows(2).all(|pair| pair[0].epoch < pair[1].epoch));
        }
    }
}
