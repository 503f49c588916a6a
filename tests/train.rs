//! Training through the command line: determinism, resumption, files, errors.

use std::path::Path;
use std::process::{Command, Output};

/// A network with convolution, batch norm, dropout, pooling, a schedule, augmentation and a metric with state:
/// everything that could depend on threads or on where a run was interrupted. The last of six batches is short.
pub const MODEL: &str = r#"
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

pub fn succeed(folder: &Path, arguments: &[&str]) -> String {
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

/// The model with another split and another `keep` line.
fn keeping(split: &str, keep: &str) -> String {
    let text = MODEL.replace("random(test = 0.2)", split);
    text.replace("accuracy, recall(macro)", &format!("accuracy, confusion\n  keep      = {keep}"))
}

fn epochs(folder: &Path, run: &str) -> Vec<serde_json::Value> {
    let text = String::from_utf8(bytes(folder, &format!("{run}/metrics.jsonl"))).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// The weights of a run's file by name, whatever else it says.
fn weights(folder: &Path, file: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = bytes(folder, file);
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let states = ["optimizer:", "metric:"];
    let mut tensors: Vec<(String, Vec<u8>)> = file
        .tensors()
        .into_iter()
        .filter(|(name, _)| !states.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, tensor)| (name, tensor.data().to_vec()))
        .collect();
    tensors.sort();
    tensors
}

#[test]
fn the_final_weights_and_figures_are_the_best_ones_where_the_best_is_asked_for() {
    let folder = workspace();
    let text = keeping("random(valid = 0.3, test = 0.2)", "best(valid.loss)").replace("3 epochs", "40 epochs");
    std::fs::write(folder.path().join("best.ansatz"), text.replace("3e-3", "3e-2")).expect("written");
    let shown = succeed(folder.path(), &["train", "best.ansatz", "--run", "run"]);
    let epochs = epochs(folder.path(), "run");
    let loss = |epoch: &serde_json::Value| epoch["valid.loss"].as_f64().expect("a loss");
    let best = epochs.iter().min_by(|a, b| loss(a).total_cmp(&loss(b))).expect("epochs");
    let last = epochs.last().expect("epochs");
    assert!(loss(best) < loss(last), "noise is learned by heart, so the last epoch is not the best");
    assert!(shown.contains(&format!("after step {}", best["step"])), "{shown}");
    let of = |file: &str| weights(folder.path(), &format!("run/{file}.safetensors"));
    assert!(of("weights") == of("best") && of("weights") != of("last"));
    let file = "run/weights.safetensors";
    let evaluated = succeed(folder.path(), &["eval", "best.ansatz", "--weights", file, "--split", "valid", "--json"]);
    let evaluated: serde_json::Value = serde_json::from_str(&evaluated).expect("JSON");
    assert_eq!(evaluated["loss"], best["valid.loss"]);
    let evaluated = succeed(folder.path(), &["eval", "best.ansatz", "--weights", file]);
    let line = evaluated.lines().find(|line| line.trim_start().starts_with("loss")).expect("a loss");
    let loss: f64 = line.split_whitespace().last().and_then(|word| word.parse().ok()).expect("a number");
    assert!(shown.contains(&format!("test: loss {loss:.4}")), "{shown}\n{evaluated}");
}

#[test]
fn figures_are_flat_and_named_after_the_split_that_was_measured() {
    let folder = workspace();
    let keys = |split: &str, keep: &str| {
        std::fs::write(folder.path().join("keep.ansatz"), keeping(split, keep)).expect("written");
        let run = format!("run{}", split.len() + keep.len());
        let output = ansatz(folder.path(), &["train", "keep.ansatz", "--epochs", "1", "--run", &run]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let epoch = epochs(folder.path(), &run).remove(0);
        let flat = |(name, value): (&String, &serde_json::Value)| {
            let rows = value.as_array().map(|rows| rows.iter().map(|row| row.as_array().map(Vec::len)).collect());
            assert_eq!(rows, name.ends_with("confusion").then(|| vec![Some(4); 4]), "{name}: {value}");
            name.clone()
        };
        let keys: Vec<String> = epoch.as_object().expect("an object").iter().map(flat).collect();
        (keys, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let has = |keys: &[String], split: &str| {
        let found = ["loss", "accuracy", "confusion", "samples"].map(|name| keys.contains(&format!("{split}.{name}")));
        assert!(found == [true; 4] || found == [false; 4], "{keys:?}");
        found[0]
    };
    let (only_test, warned) = keys("random(test = 0.2)", "best(test.accuracy)");
    assert!(has(&only_test, "train") && !has(&only_test, "valid") && has(&only_test, "test"), "{only_test:?}");
    assert!(warned.contains("warning[selected-on-test]"), "{warned}");
    let (only_valid, quiet) = keys("random(valid = 0.2)", "best(accuracy)");
    assert!(has(&only_valid, "train") && has(&only_valid, "valid") && !has(&only_valid, "test"), "{only_valid:?}");
    assert!(!quiet.contains("warning"), "{quiet}");
    let (both, _) = keys("random(valid = 0.2, test = 0.2)", "best(test.loss)");
    assert!(has(&both, "valid") && has(&both, "test"), "{both:?}");
    let (neither, _) = keys("random(valid = 0.1, test = 0.3)", "best(train.loss)");
    assert!(has(&neither, "valid") && !has(&neither, "test"), "{neither:?}");
}

#[test]
fn the_best_of_a_split_that_the_data_lacks_is_a_finding() {
    let folder = workspace();
    for keep in ["best(valid.accuracy)", "best(accuracy)"] {
        std::fs::write(folder.path().join("keep.ansatz"), keeping("random(test = 0.2)", keep)).expect("written");
        for command in ["train", "check"] {
            let output = ansatz(folder.path(), &[command, "keep.ansatz"]);
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{text}");
            assert!(text.contains("no valid split") && text.contains("best(test.accuracy)"), "{text}");
        }
    }
    std::fs::write(folder.path().join("keep.ansatz"), keeping("random(valid = 0.2)", "best(test.loss)"))
        .expect("written");
    let output = ansatz(folder.path(), &["train", "keep.ansatz"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no test split"));
}

#[test]
fn a_resumed_run_keeps_epochs_whose_figures_were_not_finite() {
    let folder = workspace();
    // On the held-out split the metric is the logarithm of a negative number.
    let own = "metric odd(logits: [N, C], label: i32[N]): lower is better {\n  if training { return 1 }\n\
               return log(mean[n] (f32(label[n]) - 9))\n}\n\ntrain";
    let text = keeping("random(valid = 0.2)", "best(valid.odd)").replace("\ntrain", &format!("\n{own}"));
    std::fs::write(folder.path().join("odd.ansatz"), text.replace("accuracy, confusion", "odd")).expect("written");
    succeed(folder.path(), &["train", "odd.ansatz", "--run", "run", "--stop-after", "8"]);
    assert_eq!(epochs(folder.path(), "run").len(), 1);
    let shown = succeed(folder.path(), &["resume", "run"]);
    let epochs = epochs(folder.path(), "run");
    assert_eq!(epochs.iter().map(|epoch| epoch["epoch"].as_f64()).collect::<Vec<_>>(), [1.0, 2.0, 3.0].map(Some));
    assert!(epochs.iter().all(|epoch| epoch["valid.odd"].is_null() && epoch["valid.loss"].is_number()), "{epochs:?}");
    assert!(shown.contains("no weights with a finite valid.odd"), "{shown}");
    assert!(!folder.path().join("run/best.safetensors").exists());
}

#[test]
fn weights_that_are_not_finite_are_never_saved() {
    let folder = workspace();
    // The root of a square has no slope at 0: the loss of the first step is finite, its gradient is not.
    let rough = "model Net {\n  input image: [N, 2, 8, 8]\n  param rough: [4] ~ zeros\n  z = image -> flatten -> fc: Linear(4)\n  \
                 y[n, c] = z[n, c] + sqrt(rough[c] * rough[c])\n  return y\n}\n";
    let text = format!("{rough}{}", &MODEL[MODEL.find("\ndata").expect("a data item")..]);
    std::fs::write(folder.path().join("rough.ansatz"), text).expect("written");
    for end in ["steps", "stop-after"] {
        let option = format!("--{end}");
        let output = ansatz(folder.path(), &["train", "rough.ansatz", "--run", end, &option, "1"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("`rough` (rough.ansatz:3:") && text.contains("not finite at step 1"), "{text}");
        assert!(text.contains("a division by zero") && text.contains("at rough.ansatz:5:23\n"), "{text}");
        for file in ["last", "weights"] {
            assert!(!folder.path().join(end).join(format!("{file}.safetensors")).exists(), "{file}");
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_named_by_what_loads_them() {
    let folder = workspace();
    succeed(folder.path(), &["train", "net.ansatz", "--run", "run", "--steps", "1"]);
    let bytes = bytes(folder.path(), "run/weights.safetensors");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let broken: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .tensors()
        .into_iter()
        .map(|(name, tensor)| {
            let mut data = tensor.data().to_vec();
            if name == "fc.bias" {
                data[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
            }
            (name, tensor.shape().to_vec(), data)
        })
        .collect();
    let views = broken.iter().map(|(name, shape, data)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data);
        (name, view.expect("a view"))
    });
    let written = safetensors::serialize(views, None).expect("serialised");
    std::fs::write(folder.path().join("nan.safetensors"), written).expect("written");
    for command in [["eval", "--weights"], ["predict", "--weights"], ["train", "--init"]] {
        let output = ansatz(folder.path(), &[command[0], "net.ansatz", command[1], "nan.safetensors"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("nan.safetensors: `fc.bias`") && text.contains("not finite"), "{text}");
    }
}

/// A step makes something that is not finite long before the next save: it is told of that step, with its operation.
#[test]
fn what_is_not_finite_is_found_in_its_step_and_its_operation_named() {
    let folder = workspace();
    let file = |name: &str, hidden: &str, settings: &str| {
        let text = format!(
            "model Net {{\n  input x: [N, 8]\n  h = x -> fc1: Linear(16) -> tanh\n  z[n, k] = {hidden}\n  return z -> fc2: \
             Linear(3)\n}}\n\ndata noise {{\n  source = random(samples = 64)\n  x: f32[8]\n  label: class[3]\n}}\n\n\
             loss bent(y: [N, C], label: i32[N]) = mean[n, c] 1e5 * y[n, c]\n\nmetric odd(y: [N, C], label: i32[N]) = \
             mean[n] log(y[n, 0] + 2)\n\ntrain Net on noise {{\n  batch = 8\n  seed = 1\n{settings}\n}}\n"
        );
        std::fs::write(folder.path().join(name), text).expect("written");
    };
    let plain = "  loss = cross_entropy(label)\n  optimizer = sgd(lr = 2.0)";
    let warmed = "  loss = cross_entropy(label)\n  optimizer = sgd(lr = 4.0)\n  schedule = warmup(100 steps)";
    let run = |name: &str, code: i32, arguments: &[&str]| {
        let output = ansatz(folder.path(), &[&["train", name], arguments].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        text
    };
    // The step in which it happens, measured without saving.
    file("log.ansatz", "log(h[n, k] + 0.97)", &format!("{warmed}\n  length = 90 epochs"));
    let text = run("log.ansatz", 2, &["--run", "log"]);
    let operation = "it comes from a logarithm of zero or of a negative number at log.ansatz:4:13\n";
    assert!(text.contains("the loss is not finite at step") && text.contains(operation), "{text}");
    assert!(text.contains("`log(max(x, 1e-6))`") && !text.contains("clip"), "{text}");
    let step: u64 =
        text.split("at step ").nth(1).expect("a step").lines().next().expect("a line").parse().expect("a number");
    assert!(step > 10, "the network is to be on its way: {step}");
    // The same behind a checkpoint, of which the way back is short, and behind weights to begin from.
    let save = format!("train.save={} steps", step - 3);
    let text = run("log.ansatz", 2, &["--run", "saved", "--set", &save]);
    assert!(text.contains(&format!("not finite at step {step}\n")) && text.contains(operation), "{text}");
    assert!(text.contains("saved/last.safetensors is from before and finite"), "{text}");
    let text = run("log.ansatz", 2, &["--run", "begun", "--init", "saved/last.safetensors"]);
    assert!(text.contains(operation), "{text}");
    // Values that grow, in the loss and in the memory of the optimizer alone.
    file("grown.ansatz", "h[n, k]", "  loss = cross_entropy(label)\n  optimizer = sgd(lr = 1e38)\n  length = 9 epochs");
    let text = run("grown.ansatz", 2, &["--run", "grown"]);
    assert!(
        text.contains("it comes from a sum of products at grown.ansatz:5:") && text.contains("clip = 1.0"),
        "{text}"
    );
    file("memory.ansatz", "h[n, k] * 1e15", "  loss = bent(label)\n  optimizer = adam(lr = 1e-3)\n  length = 9 epochs");
    let text = run("memory.ansatz", 2, &["--run", "memory"]);
    assert!(text.contains("error: `optimizer:fc2.weight.v` (library/optimizers.ansatz:"), "{text}");
    assert!(text.contains("it comes from a product at memory.ansatz:"), "{text}");
    // A metric costs its own figure, not the run, and is told once.
    file("metric.ansatz", "h[n, k] * 9", &format!("{plain}\n  metrics = odd\n  length = 9 epochs"));
    let text = run("metric.ansatz", 0, &["--run", "metric"]);
    assert_eq!(text.matches("warning: the metric `odd` is not finite at step").count(), 1, "{text}");
}
