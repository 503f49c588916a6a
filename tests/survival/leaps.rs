//! Losses that leap.

use std::process::Command;

use ansatz::runtime::data::{Plan, Rows};
use ansatz::runtime::train::Event;

use super::{How, Prepared};

/// A line through 400 points with noise, of which one lies elsewhere.
const MODEL: &str = r#"
model Net {
  input x: [N, 1]
  return x -> fc: Linear(1) -> flatten
}

data rows {
  source = csv("rows.csv")
  x: f32[1]
  y: f32[1]
}

train Net on rows {
  loss      = mse(y)
  optimizer = sgd(lr = 0.01)
  clip      = 0.5
  batch     = 4
  length    = 2 epochs
}
"#;

fn table() -> String {
    let noise = |k: usize| ((k * 7919) % 997) as f32 / 997.0 - 0.5;
    let row = |k: usize| {
        let x = (k % 37) as f32 / 37.0;
        let y = if k == 250 { 60.0 } else { 2.0 * x + 0.6 * noise(k) };
        format!("{x},{y}\n")
    };
    format!("x,y\n{}", (0..400).map(row).collect::<String>())
}

/// Steps and words of what was told beside the run.
fn told(prepared: &Prepared, run: &str, stops: &[Option<u64>]) -> Vec<String> {
    let mut troubles = Vec::new();
    for stop_after in stops {
        let told = prepared.run(run, How { stop_after: *stop_after, threads: 2 }, &mut |event| {
            if let Event::Trouble(words) = event {
                troubles.push(words.clone());
            }
        });
        assert!(told.ending.is_ok(), "{:?}", told.ending);
    }
    troubles
}

#[test]
fn a_planted_leap_is_told_with_its_step_and_stands_in_log_and_figures() {
    let prepared = Prepared::new(MODEL, &[("rows.csv", table().as_bytes())]);
    let is_planted = |step: &u64| {
        let batch = prepared.dataset.train.batch_at(&Plan::training(4, 0), *step - 1);
        batch.fields.iter().any(|rows| matches!(rows, Rows::F32(values) if values.contains(&60.0)))
    };
    // Too early in the run nothing can be said.
    let planted: Vec<u64> = (1..=200).filter(is_planted).collect();
    let expected: Vec<u64> = planted.iter().copied().filter(|step| *step > 32).collect();
    assert!(planted.len() == 2 && !expected.is_empty(), "{planted:?}");
    let words = told(&prepared, "whole", &[None]);
    assert_eq!(words.len(), expected.len(), "{words:?}");
    for (words, step) in words.iter().zip(&expected) {
        assert!(words.starts_with(&format!("the loss of step {step} is ")) && words.contains("far above"), "{words}");
    }
    let lines = prepared.lines("whole.jsonl");
    let marked: Vec<u64> =
        lines.iter().filter(|line| line.contains_key("leap")).filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(marked, expected);
    let epochs = prepared.lines("whole/metrics.jsonl");
    let counted: u64 = epochs.iter().filter_map(|epoch| epoch.get("leaps")?.as_u64()).sum();
    assert_eq!(counted, expected.len() as u64);
    // What was seen before a stop is not forgotten.
    let stops = [Some(expected[0] - 20), Some(expected[0] - 1), Some(expected[0]), None];
    assert_eq!(told(&prepared, "parts", &stops), words);
    assert!(prepared.bytes("parts/last.safetensors") == prepared.bytes("whole/last.safetensors"));
    assert_eq!(prepared.lines("parts.jsonl"), lines);
}

#[test]
fn the_noise_of_shipped_models_is_no_leap() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    for (model, steps) in [("digits", "300"), ("mnist_cnn", "120"), ("spirals", "600"), ("breast_cancer", "360")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ansatz"));
        command.arg("train").arg(root.join(format!("{model}.ansatz"))).args(["--steps", steps, "--run", model]);
        let output =
            command.args(["--log", &format!("{model}.jsonl")]).current_dir(folder.path()).output().expect("it runs");
        let (words, log) = (String::from_utf8_lossy(&output.stderr), folder.path().join(format!("{model}.jsonl")));
        assert!(output.status.success() && !words.contains("far above"), "{model}: {words}");
        let log = std::fs::read_to_string(log).expect("the log");
        assert!(log.lines().count() > 100 && !log.contains("leap"), "{model}");
    }
}
