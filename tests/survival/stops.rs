//! A run that is stopped and gone on with at every step.

use super::{How, Prepared};

/// All that a resumed run could get wrong: dropout, batch norm, momentum, a schedule, a shuffled split with a short last batch,
/// a metric with state, a figure that is kept. 43 training samples in batches of 5: nine steps a pass, fifty in all.
pub const MODEL: &str = r#"
model Net {
  input x: [N, 6]
  return x -> a: Linear(8) -> bn: BatchNorm -> relu -> Dropout(0.2) -> b: Linear(3)
}

data noise {
  source = random(samples = 53)
  x: f32[6]
  label: class[3]
  split = random(valid = 10)
}

train Net on noise {
  loss      = cross_entropy(label)
  optimizer = sgd(lr = 0.05, momentum = 0.9)
  schedule  = warmup(5 steps) -> cosine
  batch     = 5
  length    = 50 steps
  metrics   = accuracy, recall(macro)
  keep      = best(valid.loss), last(2)
  save      = 7 steps
}
"#;

/// All that must not depend on what happened on the way.
fn results(prepared: &Prepared, run: &str) -> (Vec<Vec<u8>>, [Vec<super::Line>; 2]) {
    let files = ["last", "best", "weights"].map(|file| prepared.bytes(&format!("{run}/{file}.safetensors")));
    let lines = [format!("{run}.jsonl"), format!("{run}/metrics.jsonl")];
    (files.into(), lines.map(|file| prepared.lines(&file)))
}

#[test]
fn a_run_stopped_after_any_of_fifty_steps_ends_byte_for_byte_as_one_that_was_not() {
    let prepared = Prepared::new(MODEL, &[]);
    assert_eq!(prepared.finish("whole", How::default()).steps, 50);
    let whole = results(&prepared, "whole");
    for stop in 0..50 {
        let run = format!("stop{stop}");
        let stopped = prepared.finish(&run, How { stop_after: Some(stop), threads: 1 + stop as usize % 3 });
        assert_eq!(stopped.steps, stop);
        assert_eq!(prepared.finish(&run, How::default()).steps, 50);
        assert!(results(&prepared, &run) == whole, "other results when stopped after step {stop}");
        assert!(!super::has_rubbish(&prepared.at(&run)));
    }
}

#[test]
fn a_run_stopped_after_each_step_ends_byte_for_byte_as_one_that_was_not() {
    let prepared = Prepared::new(MODEL, &[]);
    prepared.finish("whole", How::default());
    for stop in 1..=50 {
        let told = prepared.finish("parts", How { stop_after: Some(stop), threads: 1 + stop as usize % 2 });
        assert_eq!(told.steps, stop);
    }
    assert!(results(&prepared, "whole") == results(&prepared, "parts"));
}
