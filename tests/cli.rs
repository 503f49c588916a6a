//! The commands as a user meets them: exit codes, what goes where, the shipped models.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

fn ansatz(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ansatz")).args(arguments).current_dir(folder).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_new_file_checks_is_formatted_and_trains() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for arguments in [
        &["new", "first"][..],
        &["check", "first.ansatz", "--deny-warnings"],
        &["fmt", "--check", "first.ansatz"],
        &["summary", "first.ansatz"],
        &["plan", "first.ansatz"],
        &["grad", "first.ansatz"],
        &["train", "first.ansatz", "--epochs", "1"],
    ] {
        let output = ansatz(folder.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    }
    let again = ansatz(folder.path(), &["new", "first"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("exists already"));
}

#[test]
fn shipped_models_check_without_findings_and_are_formatted() {
    for arguments in [
        &["check", "--deny-warnings", "models", "benches/models", "tests/parity"][..],
        &["fmt", "--check", "models", "benches/models", "tests/parity", "src/library", "src/cli"],
    ] {
        let output = ansatz(root(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    }
}

#[test]
fn shipped_models_are_at_most_sixty_lines() {
    for entry in std::fs::read_dir(root().join("models")).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "ansatz") {
            let lines = std::fs::read_to_string(&path).expect("text").lines().count();
            assert!(lines <= 60, "{} has {lines} lines", path.display());
        }
    }
}

#[test]
fn findings_give_exit_code_one_on_standard_error_or_as_json() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wrong = "model M {\n  input x: [N, 4]\n  return x -> Liner(3)\n}\n";
    std::fs::write(folder.path().join("wrong.ansatz"), wrong).expect("written");
    let human = ansatz(folder.path(), &["check", "wrong.ansatz"]);
    assert_eq!(human.status.code(), Some(1));
    assert!(human.stdout.is_empty());
    let words = text(&human.stderr);
    assert!(words.contains("wrong.ansatz:3") && words.contains("`Linear`") && !words.contains('\x1b'), "{words}");
    let json = ansatz(folder.path(), &["check", "wrong.ansatz", "--format", "json"]);
    assert_eq!(json.status.code(), Some(1));
    let line = text(&json.stdout);
    let finding: serde_json::Value = serde_json::from_str(line.lines().next().expect("a line")).expect("JSON");
    assert_eq!(finding["line"], 3);
    let github = ansatz(folder.path(), &["check", "wrong.ansatz", "--format", "github"]);
    assert!(text(&github.stdout).starts_with("::error file=wrong.ansatz,line=3"), "{}", text(&github.stdout));
}

#[test]
fn precision_fast_allows_larger_tiles_as_the_plan_shows() {
    let planned = |precision: &str| {
        let setting = format!("train.precision={precision}");
        text(&ansatz(root(), &["plan", "benches/models/resnet18.ansatz", "--set", &setting]).stdout)
    };
    let (strict, fast) = (planned("strict"), planned("fast"));
    assert!(strict.contains("F(2x2, 3x3)") && !strict.contains("F(4x4"), "{strict}");
    assert!(fast.contains("F(4x4, 3x3)"), "{fast}");
}

#[test]
fn a_missing_file_gives_exit_code_two() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for command in ["check", "fmt", "train", "summary"] {
        let output = ansatz(folder.path(), &[command, "absent.ansatz"]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(text(&output.stderr).contains("absent.ansatz"), "{command}");
    }
}

#[test]
fn completions_name_every_command() {
    let script = text(&ansatz(root(), &["completions", "bash"]).stdout);
    for command in [
        "new",
        "check",
        "fmt",
        "summary",
        "plan",
        "tune",
        "grad",
        "train",
        "resume",
        "eval",
        "predict",
        "dump",
        "completions",
    ] {
        assert!(script.contains(command), "{command}");
    }
}

#[test]
fn every_stage_can_be_dumped() {
    for stage in ["ast", "model", "graph", "grad", "schedule", "kernel", "clif", "asm"] {
        let output = ansatz(root(), &["dump", "models/spirals.ansatz", "--stage", stage]);
        assert!(output.status.success(), "{stage}: {}", text(&output.stderr));
        assert!(output.stdout.len() > 100, "{stage}");
    }
}

/// A residual network of 150 layers: `check` must stay interactive, `summary` must count.
#[test]
fn a_network_of_150_layers_is_checked_quickly_and_counted() {
    let path = "tests/models/resnet150.ansatz";
    let began = Instant::now();
    let output = ansatz(root(), &["check", path]);
    let seconds = began.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", text(&output.stderr));
    // The promise is 50 ms in release; a debug build beside other tests gets much more.
    assert!(seconds < 5.0, "check took {seconds} s");
    let summary = text(&ansatz(root(), &["summary", path, "--size", "N=1"]).stdout);
    assert!(summary.contains("parameters") && summary.contains("MACs"), "{summary}");
}

#[test]
fn tuning_is_kept_and_changes_no_result() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = folder.path().join("cache");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ansatz"));
        command.args(arguments).args(["--threads", "2", "--cpu", "portable"]);
        let output = command.current_dir(folder.path()).env("ANSATZ_CACHE", &cache).output().expect("the binary runs");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let model = "model M {\n  input x: [N, 300]\n  return x -> Linear(200) -> relu -> Linear(10)\n}\n\n\
        data noise {\n  source = random(samples = 192)\n  x: f32[300]\n  label: class[10]\n}\n\n\
        train M on noise {\n  loss = cross_entropy(label)\n  optimizer = sgd(lr = 0.1)\n  batch = 64\n  length = 3 steps\n}\n";
    std::fs::write(folder.path().join("m.ansatz"), model).expect("written");
    run(&["train", "m.ansatz", "--run", "estimated"]);
    let first = run(&["tune", "m.ansatz"]);
    let file = std::fs::read_to_string(cache.join("tuning-portable-2.json")).expect("the measurements");
    assert!(file.contains("row_blocks"), "{first}\n{file}");
    let again = run(&["tune", "m.ansatz"]);
    assert!(again.contains("\n0 products measured"), "{again}");
    // Cuts that were not measured to be best, for every product.
    let mut other: serde_json::Value = serde_json::from_str(&file).expect("JSON");
    for (_, cut) in other["cuts"].as_object_mut().expect("an object") {
        cut["row_blocks"] = if cut["row_blocks"] == 1 { 2.into() } else { 1.into() };
    }
    std::fs::write(cache.join("tuning-portable-2.json"), other.to_string()).expect("written");
    run(&["train", "m.ansatz", "--run", "tuned"]);
    let weights = |run: &str| std::fs::read(folder.path().join(run).join("last.safetensors")).expect("the weights");
    assert!(weights("estimated") == weights("tuned"));
}

#[cfg(unix)]
#[test]
fn formatting_keeps_permissions_and_links() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (file, link) = (folder.path().join("shared/real.ansatz"), folder.path().join("link.ansatz"));
    std::fs::create_dir(folder.path().join("shared")).expect("made");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    symlink("shared/real.ansatz", &link).expect("linked");
    for (named, bits) in [("link.ansatz", 0o600), ("shared/real.ansatz", 0o640), ("shared", 0o444)] {
        std::fs::write(&file, "fn  f(x)  =  x\n").expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(bits)).expect("set");
        let output = ansatz(folder.path(), &["fmt", named]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(std::fs::read_to_string(&file).expect("text"), "fn f(x) = x\n", "{named}");
        assert_eq!(mode(&file), bits, "{named}");
        assert!(link.is_symlink(), "{named}");
        assert_eq!(std::fs::read_dir(folder.path().join("shared")).expect("listed").count(), 1, "nothing is left over");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
    }
}

#[test]
fn a_folder_without_model_files_is_a_problem() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("empty")).expect("made");
    std::fs::write(folder.path().join("good.ansatz"), "fn f(x) = x\n").expect("written");
    for arguments in
        [&["check", "empty"][..], &["fmt", "empty"], &["check", ".", "empty"], &["fmt", "--check", "empty"]]
    {
        let output = ansatz(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("there is no `.ansatz` file in the folder empty"), "{arguments:?}");
    }
}

#[test]
fn a_size_that_the_model_does_not_have_is_a_problem() {
    let output = ansatz(root(), &["summary", "models/spirals.ansatz", "--size", "N=2", "--size", "H=3"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    let words = text(&output.stderr);
    assert!(words.contains("have no size `H`; they have `N`"), "{words}");
}

#[test]
fn weights_of_inference_alone_stop_a_training_before_its_first_step() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Without a default for `classes`, `check` sees the model through its training alone.
    let model = "model M(classes) {\n  input point: [N, 2]\n  y = point -> Linear(classes)\n  if training { return y }\n  \
                param scale: [classes] ~ ones\n  z[n, c] = y[n, c] * scale[c]\n  return z\n}\n\
                data d {\n  source = spirals(classes = 3, points = 20)\n  point: f32[2]\n  label: class[3]\n  split = random(test = 0.5)\n}\n\
                train M(classes = 3) on d {\n  loss = cross_entropy(label)\n  optimizer = sgd(lr = 0.1)\n  length = 1 epochs\n}\n";
    std::fs::write(folder.path().join("m.ansatz"), model).expect("written");
    for command in ["check", "train"] {
        let output = ansatz(folder.path(), &[command, "m.ansatz"]);
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {words}");
        assert!(words.contains("the parameter `scale` exists only where `training` is false"), "{command}: {words}");
    }
}
