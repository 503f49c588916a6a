//! Progress of a training: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::runtime::figures::{Epoch, Figures};
use crate::runtime::train::Event;
use crate::runtime::trainer::Extent;

/// A bar over so many things on a terminal, nothing elsewhere.
pub fn bar(length: u64, template: &str) -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(8));
        bar.with_style(ProgressStyle::with_template(template).expect("the template is constant"))
    })
}

/// Shows the events of a training on standard error, and the epochs on standard output.
pub struct Progress {
    bar: Option<ProgressBar>,
    extent: Extent,
    began: Instant,
    samples: u64,
    shown: Instant,
    first: bool,
}

/// Seconds between two plain lines within an epoch.
const QUIET_SECONDS: u64 = 10;

/// From so many repeated steps on, somebody may wonder what is going on.
const LONG_SEARCH: u64 = 100;

impl Progress {
    /// Progress from `done` steps to the end.
    pub fn new(extent: Extent, done: u64) -> Self {
        let bar = bar(extent.total_steps, "{bar:24} {pos}/{len}  {msg}  {eta} left");
        if let Some(bar) = &bar {
            bar.set_position(done);
            bar.reset_eta();
        }
        let now = Instant::now();
        Self { bar, extent, began: now, samples: 0, shown: now, first: true }
    }

    /// Shows one event.
    pub fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Step { step, report, samples } => {
                if self.samples == 0 {
                    let seconds = crate::failure::seconds_since_start();
                    self.say(&format!("first step after {seconds:.2} s"));
                }
                self.samples += *samples as u64;
                let rate = self.samples as f64 / self.began.elapsed().as_secs_f64().max(1e-9);
                if let Some(bar) = &self.bar {
                    bar.set_position(*step);
                    bar.set_message(format!("loss {:.4}  {} samples/s", report.loss, count(rate)));
                } else if self.first || self.shown.elapsed().as_secs() >= QUIET_SECONDS {
                    self.first = false;
                    self.shown = Instant::now();
                    let total = self.extent.total_steps;
                    eprintln!("step {step}/{total}  loss {:.4}  {} samples/s", report.loss, count(rate));
                }
            }
            Event::Search { steps } if *steps < LONG_SEARCH => {}
            Event::Search { steps } => self.say(&format!(
                "something is not finite: {steps} steps are repeated to see where it comes from (Ctrl-C: without that)"
            )),
            Event::Trouble(words) => self.say(&format!("warning: {words}")),
            Event::Epoch(epoch) => {
                self.shown = Instant::now();
                let line = self.line(epoch);
                match &self.bar {
                    Some(bar) => bar.suspend(|| println!("{line}")),
                    None => println!("{line}"),
                }
            }
        }
    }

    /// A line on standard error, above the bar if there is one.
    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    fn line(&self, epoch: &Epoch) -> String {
        let epochs = self.extent.total_steps as f64 / self.extent.steps_per_epoch as f64;
        let mut line = format!("epoch {}/{}", round(epoch.epoch), round(epochs));
        for (split, measured) in &epoch.splits {
            line.push_str(&format!("  {split}: {}", figures(measured)));
        }
        format!("{line}  {:.1} s", epoch.seconds)
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `loss 0.1234  accuracy 0.9712`; metrics of many values are left to `eval`.
pub fn figures(figures: &Figures) -> String {
    let mut text = format!("loss {:.4}", figures.loss);
    for metric in &figures.metrics {
        if let Some(value) = metric.single() {
            text.push_str(&format!("  {} {value:.4}", metric.name));
        }
    }
    text
}

fn round(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// `1234`, `56.7 k`, `8.90 M`.
pub fn count(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2} G", v / 1e9),
        v if v >= 1e6 => format!("{:.2} M", v / 1e6),
        v if v >= 1e4 => format!("{:.1} k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::figures::Metric;

    #[test]
    fn counts_are_short() {
        assert_eq!([count(999.4), count(56_700.0), count(8_900_000.0)], ["999", "56.7 k", "8.90 M"]);
    }

    #[test]
    fn single_figures_are_shown_and_matrices_are_not() {
        let metric = |name: &str, sizes: &[usize], values: &[f64]| Metric {
            name: name.into(),
            sizes: sizes.to_vec(),
            values: values.to_vec(),
        };
        let metrics = vec![metric("accuracy", &[], &[0.5]), metric("counts", &[2], &[1.0, 2.0])];
        assert_eq!(figures(&Figures { loss: 1.0, metrics, samples: 3 }), "loss 1.0000  accuracy 0.5000");
    }
}
