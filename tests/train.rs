//! Training through the command line: determinism, resumption, files, errors.

use std::path::Path;
use std::process::{Command, Output};

/// A network with convolution, batch norm, dropout, pooling, a schedule, augmentation and a metric with state:
/// everything that could depend on threads or on where a run was interrupted.
const MODEL: &str = r#"
model Net {
  input image: [N, 2, 8, 8]
  return image
    -> conv1: Conv(6, 3, pad = 1) -> bn1: BatchNorm -> relu -> max_pool(2)
    -> conv2: Conv(5, 3, stride = 2, pad = 1) -> relu -> flatten
    -> Dropout(0.2) -> fc: Linear(4)
}

data noise {
  source = random(samples = 58)
  image: f32[2, 8, 8]
  label: class[4]
  augment.image = random_crop(8, pad = 1) -> random_flip(horizontal)
  split = random(test = 0.2)
}

train Net on noise {
  loss      = cross_entropy(label)
  optimizer = adamw(lr = 3e-3)
  schedule  = warmup(3 steps) -> cosine(to = 0.1)
  batch     = 9
  length    = 3 epochs
  clip      = 1.0
  metrics   = accuracy, recall(macro)
}
"#;

fn ansatz(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ansatz")).args(arguments).current_dir(folder).output().expect("the binary runs")
}

fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = ansatz(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn workspace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("net.ansatz"), MODEL).expect("written");
    folder
}

fn bytes(folder: &Path, file: &str) -> Vec<u8> {
    std::fs::read(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn results_are_the_same_bits_at_1_2_3_and_7_threads() {
    let folder = workspace();
    for threads in ["1", "2", "3", "7"] {
        succeed(folder.path(), &["train", "net.ansatz", "--threads", threads, "--run", threads]);
    }
    let one = bytes(folder.path(), "1/last.safetensors");
    for threads in ["2", "3", "7"] {
        let same = one == bytes(folder.path(), &format!("{threads}/last.safetensors"));
        assert!(same, "1 and {threads} threads give other bits");
    }
}

#[test]
fn a_run_interrupted_after_any_step_ends_with_the_same_bits() {
    let folder = workspace();
    succeed(folder.path(), &["train", "net.ansatz", "--run", "whole"]);
    let whole = bytes(folder.path(), "whole/last.safetensors");
    // 46 training samples in batches of 9: six steps an epoch, eighteen in all.
    for stop in 1..18 {
        let (run, stop) = (format!("stop{stop}"), stop.to_string());
        let text = succeed(folder.path(), &["train", "net.ansatz", "--run", &run, "--stop-after", &stop]);
        assert!(text.contains(&format!("ansatz resume {run}")), "{text}");
        succeed(folder.path(), &["resume", &run]);
        let same = whole == bytes(folder.path(), &format!("{run}/last.safetensors"));
        assert!(same, "other bits when stopped after step {stop}");
    }
    let lines = |run: &str| String::from_utf8(bytes(folder.path(), &format!("{run}/metrics.jsonl"))).expect("text");
    assert_eq!(lines("whole").lines().count(), 3);
    assert_eq!(lines("stop7").lines().count(), 3);
}

#[test]
fn a_run_folder_holds_weights_figures_and_a_curve() {
    let folder = workspace();
    let arguments = ["train", "net.ansatz", "--run", "run", "--log", "steps.jsonl", "--log-grads"];
    let text = succeed(folder.path(), &arguments);
    assert!(text.contains("run/weights.safetensors") && text.contains("ansatz eval net.ansatz"), "{text}");
    let log = String::from_utf8(bytes(folder.path(), "steps.jsonl")).expect("text");
    assert_eq!(log.lines().count(), 18);
    let first: serde_json::Value = serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["step"], 1);
    assert!(first["loss"].as_f64().expect("a loss") > 0.0);
    assert!(first["grads"]["conv1.weight"].as_f64().expect("a norm") > 0.0);
    assert!(String::from_utf8(bytes(folder.path(), "run/loss.svg")).expect("text").starts_with("<svg"));
    let text = succeed(folder.path(), &["eval", "net.ansatz", "--weights", "run/weights.safetensors", "--json"]);
    let figures: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(figures["samples"], 12);
    let text = succeed(folder.path(), &["predict", "net.ansatz", "--weights", "run/weights.safetensors"]);
    assert_eq!(text.lines().count(), 12);
}

#[test]
fn weights_of_another_model_are_refused_with_names() {
    let folder = workspace();
    succeed(folder.path(), &["train", "net.ansatz", "--run", "run", "--epochs", "1"]);
    let other = MODEL.replace("fc: Linear(4)", "head: Linear(4)");
    std::fs::write(folder.path().join("other.ansatz"), other).expect("written");
    let output = ansatz(folder.path(), &["eval", "other.ansatz", "--weights", "run/weights.safetensors"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("`head.weight`") && text.contains("no `fc.weight`"), "{text}");
}

#[test]
fn a_changed_model_file_cannot_be_resumed() {
    let folder = workspace();
    succeed(folder.path(), &["train", "net.ansatz", "--run", "run", "--stop-after", "2"]);
    std::fs::write(folder.path().join("net.ansatz"), MODEL.replace("3e-3", "1e-3")).expect("written");
    let output = ansatz(folder.path(), &["resume", "run"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("another version of the model file"));
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let folder = workspace();
    succeed(folder.path(), &["train", "net.ansatz", "--run", "run", "--stop-after", "2"]);
    let mut broken = bytes(folder.path(), "run/last.safetensors");
    let last = broken.len() - 3;
    broken[last] ^= 1;
    std::fs::write(folder.path().join("run/last.safetensors"), broken).expect("written");
    let output = ansatz(folder.path(), &["resume", "run"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("checksum"));
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_names_the_step() {
    let folder = workspace();
    let output = ansatz(folder.path(), &["train", "net.ansatz", "--run", "run", "--set", "optimizer.lr=1e30"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not finite at step"));
}

/// A convolution and a linear layer trained on rows of a table, by plain descent: a step depends on weights and batch alone.
const ROWS: &str = r#"
model Net {
  input x: [N, 14]
  return reshape(x, [N, 2, 7]) -> conv: Conv(5, 3, pad = 1) -> relu -> flatten -> fc: Linear(3)
}

data rows {
  source = csv("FILE.csv")
  x: f32[14]
  label: class[3]
}

train Net on rows {
  loss      = cross_entropy(label)
  optimizer = sgd(lr = 0.1)
  batch     = BATCH
  length    = 1 epochs
}
"#;

/// `count` samples from number `first` on.
fn rows(first: usize, count: usize) -> String {
    let head: Vec<String> = (0..14).map(|column| format!("x{column}")).collect();
    let row = |sample: usize| {
        let numbers: Vec<String> =
            (0..14).map(|column| format!("{}", ((sample * 37 + column * 11) % 29) as f32 / 16.0 - 0.9)).collect();
        format!("{},{}\n", numbers.join(","), sample % 3)
    };
    let body: String = (first..first + count).map(row).collect();
    format!("{},label\n{body}", head.join(","))
}

#[test]
fn a_short_last_batch_is_a_step_on_its_samples_alone() {
    let folder = workspace();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let model = |file: &str, batch: usize| ROWS.replace("FILE", file).replace("BATCH", &batch.to_string());
    for (batch, rest) in [(9, 1), (9, 3), (16, 7)] {
        write("all.csv", &rows(0, batch + rest));
        write("rest.csv", &rows(batch, rest));
        write("all.ansatz", &model("all", batch));
        write("rest.ansatz", &model("rest", rest));
        let run = |name: &str| format!("{name}-{batch}-{rest}");
        let train = |file: &str, run: &str, more: &[&str]| {
            let arguments = [&["train", file, "--no-shuffle", "--run", run], more].concat();
            succeed(folder.path(), &arguments)
        };
        train("all.ansatz", &run("both"), &[]);
        train("all.ansatz", &run("first"), &["--steps", "1"]);
        let weights = format!("{}/weights.safetensors", run("first"));
        train("rest.ansatz", &run("alone"), &["--init", &weights]);
        // The files' notes tell of the settings, in which the runs differ.
        let of = |name: &str| {
            let path = folder.path().join(run(name)).join("weights.safetensors");
            ansatz::runtime::checkpoint::load(&path).expect("weights").0
        };
        assert!(of("both") == of("alone"), "batch {batch}, rest {rest}");
        assert!(of("both") != of("first"), "the short batch is no step");
    }
}
