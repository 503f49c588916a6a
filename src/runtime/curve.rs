//! The loss curve as a picture.
//!
//! Input: the epochs of a run. Output: SVG text. Invariant: a run of any length gives a readable picture;
//! values that are not finite are left out.

use plotters::prelude::*;

use super::record::Epoch;

/// An SVG of training loss and, where present, validation loss over epochs.
///
/// # Errors
/// What the plotting library reports, as text.
pub fn svg(title: &str, epochs: &[Epoch]) -> Result<String, String> {
    let series = |get: &dyn Fn(&Epoch) -> Option<f64>| -> Vec<(f64, f64)> {
        epochs.iter().filter_map(|e| get(e).filter(|v| v.is_finite()).map(|v| (e.epoch, v))).collect()
    };
    let train = series(&|epoch| Some(epoch.train.loss));
    let held_out = series(&|epoch| epoch.valid.as_ref().map(|figures| figures.loss));
    let points = train.iter().chain(&held_out);
    let (mut low, mut high) = points.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(p.1), h.max(p.1)));
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    let margin = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-9);
    let last = epochs.last().map_or(1.0, |epoch| epoch.epoch).max(1e-9);
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (720, 420)).into_drawing_area();
        draw(&root, title, (0.0..last, (low - margin)..(high + margin)), [&train, &held_out])
            .map_err(|problem| problem.to_string())?;
        root.present().map_err(|problem| problem.to_string())?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Range = std::ops::Range<f64>;

fn draw(
    root: &Area<'_>,
    title: &str,
    (across, up): (Range, Range),
    [train, held_out]: [&Vec<(f64, f64)>; 2],
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
    let lines = [("training", train, RGBColor(31, 119, 180)), ("held out", held_out, RGBColor(255, 127, 14))];
    for (name, points, color) in lines {
        if points.is_empty() {
            continue;
        }
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(2))
            .map_err(text)?
            .label(name)
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
    use super::super::record::{Epoch, Figures};
    use super::*;

    fn epoch(number: f64, loss: f64) -> Epoch {
        let figures = |loss| Figures { loss, metrics: Vec::new(), samples: 1 };
        let (train, valid) = (figures(loss), Some(figures(loss * 1.1)));
        Epoch { epoch: number, step: number as u64, lr: 0.1, seconds: 1.0, train, valid }
    }

    #[test]
    fn a_run_gives_a_picture_with_both_lines() {
        let text = svg("digits", &[epoch(1.0, 2.0), epoch(2.0, 1.0)]).expect("drawn");
        assert!(text.starts_with("<svg") && text.contains("held out") && text.contains("training"));
    }

    #[test]
    fn values_that_are_not_finite_are_left_out() {
        assert!(!svg("digits", &[epoch(1.0, f64::NAN), epoch(2.0, 1.0)]).expect("drawn").contains("NaN"));
        svg("nothing", &[]).expect("an empty run is drawn too");
    }
}
