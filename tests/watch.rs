//! What a run shows of itself: events, reports, sweeps.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Eight steps an epoch, with a split that is held out and classes that are told apart.
const MODEL: &str = r#"
model Net {
  input x: [N, 6]
  return x -> a: Linear(8) -> relu -> Dropout(0.2) -> b: Linear(3)
}

data noise {
  source = random(samples = 50)
  x: f32[6]
  label: class[3]
  split = random(test = 0.2)
}

train Net on noise {
  loss      = cross_entropy(label)
  optimizer = sgd(lr = 0.05)
  batch     = 5
  length    = 3 epochs
  metrics   = accuracy
}
"#;

fn workspace(model: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("net.ansatz"), model).expect("written");
    folder
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ansatz"));
    command.args(arguments).current_dir(folder).output().expect("the binary runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output of a command that ends with 0.
fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", errors(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn json(folder: &Path, file: &str) -> serde_json::Value {
    serde_json::from_str(&text(folder, file)).expect("JSON")
}

#[test]
fn a_complete_run_has_a_report_with_its_figures_and_classes() {
    let folder = workspace(MODEL);
    let path = folder.path();
    let said = succeed(path, &["train", "net.ansatz", "--run", "run", "--seed", "4"]);
    assert!(said.contains("report: run/report.html"), "{said}");
    let result = json(path, "run/result.json");
    assert_eq!((result["complete"].as_bool(), result["step"].as_u64()), (Some(true), Some(24)));
    let evaluated = succeed(path, &["eval", "net.ansatz", "--weights", "run/weights.safetensors", "--json"]);
    let evaluated: serde_json::Value = serde_json::from_str(&evaluated).expect("JSON");
    assert_eq!(result["figures"][0][1], evaluated["loss"]);
    assert_eq!(result["figures"][1][1], evaluated["accuracy"]);
    assert_eq!(result["classes"]["counts"], evaluated["confusion"]);
    let page = text(path, "run/report.html");
    let loss = format!("<b>{:.4}</b><span>test loss</span>", evaluated["loss"].as_f64().expect("a number"));
    for part in [&loss, "<h2>Curves", "<h2>Classes", "<h2>Model<", "<h2>Plan", "[N, 8]", "train.seed = 4", "--seed 4"] {
        assert!(page.contains(part), "{part}");
    }
    let about = json(path, "run/about.json");
    assert_eq!(about["about"]["parameters"].as_u64(), Some(6 * 8 + 8 + 8 * 3 + 3));
    assert_eq!(about["about"]["sources"][0]["text"].as_str(), Some(MODEL));
    std::fs::remove_file(path.join("run/report.html")).expect("removed");
    assert_eq!(succeed(path, &["report", "run"]), "report: run/report.html\n");
    assert_eq!(text(path, "run/report.html"), page, "it is made of what the folder holds");
}

#[test]
fn an_interrupted_run_says_so_and_its_resumption_is_told() {
    let folder = workspace(MODEL);
    let path = folder.path();
    succeed(path, &["train", "net.ansatz", "--run", "run", "--stop-after", "11"]);
    assert_eq!(json(path, "run/result.json")["how"], "stopped");
    assert!(
        text(path, "run/report.html").contains("train loss, last pass")
            || text(path, "run/report.html").contains("test loss, last pass")
    );
    succeed(path, &["resume", "run"]);
    let about = json(path, "run/about.json");
    let after: Vec<u64> =
        about["sessions"].as_array().expect("a list").iter().filter_map(|each| each["after_step"].as_u64()).collect();
    assert_eq!(after, [0, 11]);
    assert!(text(path, "run/report.html").contains("after step 11"));
    let mut events: Vec<String> = std::fs::read_dir(path.join("run"))
        .expect("listed")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    events.retain(|name| name.contains("tfevents"));
    assert_eq!(events.len(), 2);
}

#[test]
fn a_run_that_diverges_is_told_in_its_report() {
    let folder = workspace(&MODEL.replace("lr = 0.05", "lr = 1e30"));
    let path = folder.path();
    assert_eq!(run(path, &["train", "net.ansatz", "--run", "run"]).status.code(), Some(2));
    assert!(text(path, "run/report.html").contains("is not finite at step"));
    assert_eq!(json(path, "run/result.json")["complete"], false);
}

#[test]
fn a_report_that_cannot_be_written_ends_no_run() {
    let folder = workspace(MODEL);
    let path = folder.path();
    for name in ["about.json", "report.html", "events.out.tfevents.000001.ansatz"] {
        std::fs::create_dir_all(path.join("run").join(name)).expect("made");
    }
    let output = run(path, &["train", "net.ansatz", "--run", "run"]);
    let said = errors(&output);
    assert!(output.status.success() && path.join("run/weights.safetensors").exists(), "{said}");
    assert_eq!(said.matches("the events for TensorBoard cannot be written").count(), 1, "{said}");
    assert_eq!(said.matches("the report cannot be noted").count(), 1, "{said}");
}

#[test]
fn foreign_folders_have_no_report() {
    let folder = workspace(MODEL);
    let path = folder.path();
    std::fs::create_dir(path.join("other")).expect("made");
    for (name, words) in [("other", "not the folder of a run"), ("none", "there is no such folder")] {
        let output = run(path, &["report", name]);
        assert!(output.status.code() == Some(2) && errors(&output).contains(words), "{}", errors(&output));
    }
    assert_eq!(std::fs::read_dir(path.join("other")).expect("listed").count(), 0);
}

#[test]
fn runs_are_compared_by_what_differs() {
    let folder = workspace(MODEL);
    let path = folder.path();
    succeed(path, &["train", "net.ansatz", "--run", "slow", "--set", "optimizer.lr=0.0001"]);
    succeed(path, &["train", "net.ansatz", "--run", "fast"]);
    let table = succeed(path, &["report", "slow", "fast", "--output", "both.html"]);
    assert!(
        table.contains("optimizer.lr") && table.contains("0.0001") && table.contains("by the lowest test.loss"),
        "{table}"
    );
    let page = text(path, "both.html");
    assert!(page.contains("slow: lr 0.0001") && page.matches("<tr class=\"best\">").count() == 1);
    assert!(!page.contains("<script"));
    let twice = run(path, &["report", "fast", "slow", "./fast/../fast", "fast"]);
    assert_eq!(String::from_utf8_lossy(&twice.stdout).matches("  complete").count(), 2, "{}", errors(&twice));
    assert_eq!(errors(&twice).matches("given twice and shown once").count(), 2, "{}", errors(&twice));
}

#[test]
fn a_sweep_trains_each_combination_and_goes_on_where_it_stopped() {
    let folder = workspace(MODEL);
    let path = folder.path();
    let sweep = [
        "sweep",
        "net.ansatz",
        "--run",
        "grid",
        "--epochs",
        "1",
        "--set",
        "optimizer=sgd(lr = 0.05, momentum = 0.9),adamw(lr = 0.01)",
        "--seed",
        "1,2",
    ];
    let began = Instant::now();
    let output = run(path, &sweep);
    let took = began.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", errors(&output));
    let (table, told) = (String::from_utf8_lossy(&output.stdout).into_owned(), errors(&output));
    let first = |line: &str| line.strip_prefix("first step after ")?.strip_suffix(" s")?.parse::<f64>().ok();
    let firsts: Vec<f64> = told.lines().filter_map(first).collect();
    assert!(firsts.len() == 4 && firsts.iter().sum::<f64>() < took + 0.02, "each from its own start: {firsts:?}");
    assert!(table.contains("* best: ") && table.contains("report: grid/report.html"), "{table}");
    assert!(!table.contains("model texts"), "settings are no part of the text: {table}");
    let written = |number: u32| {
        std::fs::metadata(path.join(format!("grid/{number}/weights.safetensors")))
            .expect("written")
            .modified()
            .expect("a time")
    };
    let before = written(1);
    // The third was killed before it had saved anything.
    for name in ["weights.safetensors", "last.safetensors", "result.json"] {
        std::fs::remove_file(path.join("grid/3").join(name)).expect("removed");
    }
    let output = run(path, &sweep);
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(errors(&output).matches(": complete").count(), 3);
    assert!(written(1) == before && path.join("grid/3/weights.safetensors").exists());
    // A run of a sweep is a run: the same bits as alone.
    succeed(
        path,
        &[
            "train",
            "net.ansatz",
            "--run",
            "alone",
            "--epochs",
            "1",
            "--set",
            "optimizer=adamw(lr = 0.01)",
            "--seed",
            "1",
        ],
    );
    let weights = |run: &str| std::fs::read(path.join(run).join("weights.safetensors")).expect("read");
    let tensors = |run: &str| weights(run)[weights(run).len() - 4 * (6 * 8 + 8 + 8 * 3 + 3)..].to_vec();
    assert!(tensors("grid/3") == tensors("alone"), "other bits");
    let other = run(path, &["sweep", "net.ansatz", "--run", "grid", "--seed", "1,2"]);
    assert!(other.status.code() == Some(2) && errors(&other).contains("holds another sweep"), "{}", errors(&other));
    assert!(succeed(path, &["report", "grid"]).contains("* best: "));
}

#[test]
fn a_run_that_fails_ends_no_sweep() {
    let folder = workspace(MODEL);
    let path = folder.path();
    let diverging = ["sweep", "net.ansatz", "--run", "grid", "--set", "optimizer.lr=1e30,0.05"];
    let output = run(path, &diverging);
    let said = errors(&output);
    assert!(
        output.status.code() == Some(2) && said.contains("run 1 failed: ") && said.contains("1 of 2 runs failed: 1"),
        "{said}"
    );
    assert!(path.join("grid/2/weights.safetensors").exists());
    let output = run(path, &["sweep", "net.ansatz", "--run", "wrong", "--set", "batch=nonsense,5"]);
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert!(path.join("wrong/2/weights.safetensors").exists());
    let once = run(path, &["sweep", "net.ansatz", "--run", "once", "--epochs", "1", "--seed", "1,2,1"]);
    assert!(once.status.success() && errors(&once).contains("train.seed=1 is given twice"), "{}", errors(&once));
    assert!(path.join("once/2").exists() && !path.join("once/3").exists());
    let twice = run(path, &["sweep", "net.ansatz", "--set", "train.seed=1", "--seed", "2"]);
    assert!(errors(&twice).contains("is given twice"), "{}", errors(&twice));
}

#[test]
fn a_signal_ends_a_sweep_saved_and_with_its_code() {
    let folder = workspace(MODEL);
    let path = folder.path();
    let arguments = ["sweep", "net.ansatz", "--run", "grid", "--epochs", "100000000", "--seed", "1,2"];
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,TERM,HUP", env!("CARGO_BIN_EXE_ansatz")]).args(arguments).current_dir(path);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let began = Instant::now();
    while !path.join("grid/1/last.safetensors").exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "the sweep does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(143), "{}", errors(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("everything is saved") && said.contains("--run grid"), "{said}");
    assert!(!path.join("grid/2").exists());
}
