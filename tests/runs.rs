//! Runs that are killed, interrupted, raced for and gone on with.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Dropout, batch norm, momentum and a shuffled split: all that a resumed run could get wrong. 40 training samples in
/// batches of 5: eight steps an epoch, 24 in all.
const MODEL: &str = r#"
model Net {
  input x: [N, 6]
  return x -> a: Linear(8) -> bn: BatchNorm -> relu -> Dropout(0.2) -> b: Linear(3)
}

data noise {
  source = random(samples = 50)
  x: f32[6]
  label: class[3]
  split = random(test = 0.2)
}

train Net on noise {
  loss      = cross_entropy(label)
  optimizer = sgd(lr = 0.05, momentum = 0.9)
  batch     = 5
  length    = 3 epochs
  metrics   = accuracy
}
"#;

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ansatz"));
    command.args(arguments).current_dir(folder);
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().expect("the binary runs")
}

/// Standard output of a command that ends with 0.
fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", errors(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn workspace(model: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("net.ansatz"), model).expect("written");
    folder
}

fn bytes(folder: &Path, file: &str) -> Vec<u8> {
    std::fs::read(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Starts a run that does not end by itself, and waits until it has saved. What the tests were started to ignore
/// (below `nohup`, or in the background of a script) the run does not ignore.
fn endless(folder: &Path) -> Child {
    let arguments = ["train", "net.ansatz", "--run", "run", "--epochs", "100000000"];
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,TERM,HUP", env!("CARGO_BIN_EXE_ansatz")]).args(arguments).current_dir(folder);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let began = Instant::now();
    while !folder.join("run/last.safetensors").exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "the run does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.expect("the binary runs")
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
}

/// Runs to the end with nobody reading: both ends of the pipes are closed at once.
fn unread(folder: &Path, arguments: &[&str]) -> Option<i32> {
    let mut child = command(folder, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    drop((child.stdout.take(), child.stderr.take()));
    child.wait().expect("ended").code()
}

#[test]
fn a_run_killed_before_its_first_save_begins_again() {
    let folder = workspace(MODEL);
    let path = folder.path();
    succeed(path, &["train", "net.ansatz", "--run", "whole"]);
    succeed(path, &["train", "net.ansatz", "--run", "killed", "--stop-after", "0"]);
    std::fs::remove_file(path.join("killed/last.safetensors")).expect("nothing was saved");
    std::fs::remove_file(path.join("killed/metrics.jsonl")).expect("nothing was written");
    succeed(path, &["resume", "killed"]);
    assert!(bytes(path, "whole/last.safetensors") == bytes(path, "killed/last.safetensors"), "other bits");
}

#[test]
fn a_run_from_given_weights_that_was_killed_before_its_first_save_begins_from_them() {
    let folder = workspace(MODEL);
    let path = folder.path();
    succeed(path, &["train", "net.ansatz", "--run", "first", "--seed", "5", "--epochs", "1"]);
    std::fs::copy(path.join("first/weights.safetensors"), path.join("init.safetensors")).expect("copied");
    let begin = ["train", "net.ansatz", "--init", "init.safetensors"];
    succeed(path, &[&begin[..], &["--run", "whole"]].concat());
    succeed(path, &[&begin[..], &["--run", "killed", "--stop-after", "0"]].concat());
    std::fs::remove_file(path.join("killed/last.safetensors")).expect("nothing was saved");
    let saved = bytes(path, "init.safetensors");
    std::fs::copy(path.join("whole/weights.safetensors"), path.join("init.safetensors")).expect("changed");
    let output = run(path, &["resume", "killed"]);
    assert!(output.status.code() == Some(2) && errors(&output).contains("not what the run began from"));
    std::fs::write(path.join("init.safetensors"), saved).expect("written");
    succeed(path, &["resume", "killed"]);
    assert!(bytes(path, "whole/last.safetensors") == bytes(path, "killed/last.safetensors"), "other bits");
}

#[test]
fn weights_that_a_killed_run_did_not_write_are_written_by_resuming_it() {
    let folder = workspace(MODEL);
    let path = folder.path();
    succeed(path, &["train", "net.ansatz", "--run", "run"]);
    let weights = bytes(path, "run/weights.safetensors");
    std::fs::remove_file(path.join("run/weights.safetensors")).expect("killed before it was written");
    let text = succeed(path, &["resume", "run"]);
    assert!(text.contains("run/weights.safetensors"), "{text}");
    assert!(weights == bytes(path, "run/weights.safetensors"), "other bits");
    std::fs::remove_file(path.join("run/result.json")).expect("killed while it was evaluated");
    let text = succeed(path, &["resume", "run"]);
    assert!(text.contains("test: loss") && text.contains("report.html"), "{text}");
    assert!(path.join("run/result.json").exists() && weights == bytes(path, "run/weights.safetensors"));
    assert!(succeed(path, &["resume", "run"]).contains("nothing is left to do"));
}

#[test]
fn a_step_log_has_each_step_once_after_a_kill() {
    let folder = workspace(MODEL);
    let path = folder.path();
    let log = ["--log", "steps.jsonl"];
    succeed(path, &[&["train", "net.ansatz", "--run", "run", "--stop-after", "11"], &log[..]].concat());
    let mut text = String::from_utf8(bytes(path, "steps.jsonl")).expect("text");
    text.push_str("{\"step\":12,\"loss\":1.0,\"lr\":0.1,\"ms\":1.0}\n{\"step\":13,\"lo");
    std::fs::write(path.join("steps.jsonl"), text).expect("written");
    succeed(path, &[&["resume", "run"], &log[..]].concat());
    let text = String::from_utf8(bytes(path, "steps.jsonl")).expect("text");
    let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["step"].as_u64();
    let steps: Vec<u64> = text.lines().filter_map(step).collect();
    assert_eq!(steps, (1..=24).collect::<Vec<u64>>());
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = workspace(MODEL);
    let path = folder.path();
    succeed(path, &["train", "net.ansatz", "--run", "run", "--stop-after", "3"]);
    let lock = std::fs::File::open(path.join("run/.lock")).expect("the lock's file");
    lock.lock().expect("locked");
    for arguments in [&["resume", "run"][..], &["train", "net.ansatz", "--run", "run"]] {
        let output = run(path, arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(errors(&output).contains("another process is using run"), "{}", errors(&output));
    }
    drop(lock);
    succeed(path, &["resume", "run"]);
}

#[test]
fn runs_that_start_at_once_have_a_folder_each() {
    let folder = workspace(MODEL);
    let path = folder.path();
    let start = |_| command(path, &["train", "net.ansatz", "--steps", "1"]).output().expect("the binary runs");
    let outputs: Vec<Output> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|number| scope.spawn(move || start(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("ended")).collect()
    });
    assert!(outputs.iter().all(|output| output.status.success()));
    let complete = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("an entry").path().join("weights.safetensors").exists()
    };
    assert_eq!(std::fs::read_dir(path.join("runs")).expect("the runs").count(), 6);
    assert!(std::fs::read_dir(path.join("runs")).expect("the runs").all(complete));
}

#[test]
fn saves_follow_the_item_and_the_latest_are_kept() {
    let folder = workspace(&MODEL.replace("  metrics", "  save      = 5 steps\n  keep      = last(2)\n  metrics"));
    let path = folder.path();
    succeed(path, &["train", "net.ansatz", "--run", "run"]);
    let present = |name: &str| path.join("run").join(name).exists();
    assert!(present("last-20.safetensors") && present("last-24.safetensors") && !present("last-15.safetensors"));
    assert!(bytes(path, "run/last-24.safetensors") == bytes(path, "run/last.safetensors"));
    // The newest is damaged: the one before is gone on with, and it is said.
    let whole = bytes(path, "run/last.safetensors");
    let mut broken = whole.clone();
    broken[100] ^= 4;
    std::fs::write(path.join("run/last-24.safetensors"), &broken).expect("written");
    std::fs::write(path.join("run/last.safetensors"), &broken).expect("written");
    std::fs::remove_file(path.join("run/weights.safetensors")).expect("removed");
    let output = run(path, &["resume", "run"]);
    assert!(output.status.success(), "{}", errors(&output));
    assert!(errors(&output).contains("last-24.safetensors: damaged"), "{}", errors(&output));
    assert!(errors(&output).contains("going on after step 20"), "{}", errors(&output));
    assert!(whole == bytes(path, "run/last.safetensors"), "other bits");
    let epochs = String::from_utf8(bytes(path, "run/metrics.jsonl")).expect("text");
    assert_eq!(epochs.lines().count(), 3);
}

#[test]
fn an_interrupted_run_is_saved_and_ends_with_the_code_of_its_signal() {
    for (names, code) in [(&["-INT"][..], 130), (&["-TERM"], 143), (&["-HUP"], 129), (&["-INT", "-INT", "-INT"], 130)] {
        let folder = workspace(MODEL);
        let path = folder.path();
        let child = endless(path);
        names.iter().for_each(|name| signal(&child, name));
        let output = child.wait_with_output().expect("ended");
        assert_eq!(output.status.code(), Some(code), "{names:?}: {}", errors(&output));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let step = text.split("stopped after step ").nth(1).and_then(|rest| rest.split(';').next());
        let step: u64 = step.and_then(|step| step.parse().ok()).unwrap_or_else(|| panic!("{text}"));
        let stop = (step + 2).to_string();
        let output = run(path, &["resume", "run", "--stop-after", &stop]);
        assert!(output.status.success() && errors(&output).contains(&format!("going on after step {step}\n")));
        // The same bits as a run that nobody interrupted.
        succeed(path, &["train", "net.ansatz", "--run", "whole", "--epochs", "100000000", "--stop-after", &stop]);
        assert!(bytes(path, "run/last.safetensors") == bytes(path, "whole/last.safetensors"), "{names:?}");
    }
}

#[test]
fn nobody_reading_ends_no_command() {
    let folder = workspace(MODEL);
    let path = folder.path();
    assert_eq!(unread(path, &["train", "net.ansatz", "--run", "run"]), Some(0));
    assert!(path.join("run/weights.safetensors").exists());
    assert_eq!(unread(path, &["resume", "run"]), Some(0));
    let weights = ["--weights", "run/weights.safetensors"];
    for arguments in [
        &["check", "net.ansatz"][..],
        &["summary", "net.ansatz"],
        &["plan", "net.ansatz"],
        &["dump", "net.ansatz", "--stage", "kernel"],
        &["completions", "bash"],
        &[&["eval", "net.ansatz"][..], &weights].concat(),
        &[&["predict", "net.ansatz"][..], &weights].concat(),
    ] {
        assert_eq!(unread(path, arguments), Some(0), "{arguments:?}");
    }
    std::fs::write(path.join("net.ansatz"), MODEL.replace("Linear(8)", "Linear(8, 9, 10)")).expect("written");
    assert_eq!(unread(path, &["check", "net.ansatz"]), Some(1), "the finding still counts");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_under_the_output_stops_no_training() {
    let folder = workspace(MODEL);
    let path = folder.path();
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("the full device");
    let arguments = ["train", "net.ansatz", "--run", "run", "--log", "/dev/full"];
    let output = command(path, &arguments).stdout(full()).output().expect("the binary runs");
    let text = errors(&output);
    assert!(output.status.success() && path.join("run/weights.safetensors").exists(), "{text}");
    assert_eq!(text.matches("the log of steps cannot be written").count(), 1, "{text}");
    assert_eq!(text.matches("standard output cannot be written").count(), 1, "{text}");
    // What is all output of a command is its work, so losing it is a failure.
    let output = command(path, &["summary", "net.ansatz"]).stdout(full()).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
}

/// The model with its samples in a file.
fn with_file() -> String {
    MODEL.replace("random(samples = 50)", "csv(\"rows.csv\")")
}

fn rows(change: &str) -> String {
    let row = |sample: usize| {
        let numbers: Vec<String> = (0..6).map(|x| format!("{}", (sample * 7 + x * 5) % 11)).collect();
        format!("{},{}\n", numbers.join(","), sample % 3)
    };
    format!("x0,x1,x2,x3,x4,x5,label\n{}{change}", (0..50).map(row).collect::<String>())
}

#[test]
fn a_model_file_may_move_and_be_written_otherwise() {
    let folder = workspace(&with_file());
    let path = folder.path();
    std::fs::write(path.join("rows.csv"), rows("")).expect("written");
    succeed(path, &["train", "net.ansatz", "--run", "whole"]);
    succeed(path, &["train", "net.ansatz", "--run", "runs/moved", "--stop-after", "5"]);
    succeed(path, &["train", "net.ansatz", "--run", "said", "--stop-after", "5"]);
    // Comments, layout and what the run does not use.
    let text = with_file().replace("  return x", "  # what the net does\n\n  return x") + "\nfn unused(x) = x + 1\n";
    std::fs::write(path.join("net.ansatz"), text).expect("written");
    // The project moves as a whole, runs and all.
    let parent = tempfile::tempdir().expect("a temporary folder");
    let new = parent.path().join("project");
    std::fs::create_dir(&new).expect("made");
    for name in ["net.ansatz", "rows.csv", "runs", "said"] {
        std::fs::rename(path.join(name), new.join(name)).expect("moved");
    }
    succeed(&new, &["resume", "runs/moved"]);
    assert!(bytes(path, "whole/last.safetensors") == bytes(&new, "runs/moved/last.safetensors"), "other bits");
    // The file alone gets another name.
    std::fs::rename(new.join("net.ansatz"), new.join("other.ansatz")).expect("moved");
    let output = run(&new, &["resume", "said"]);
    assert!(output.status.code() == Some(2) && errors(&output).contains("--model FILE"), "{}", errors(&output));
    succeed(&new, &["resume", "said", "--model", "other.ansatz", "--stop-after", "7"]);
    succeed(&new, &["resume", "said"]);
    assert!(bytes(path, "whole/last.safetensors") == bytes(&new, "said/last.safetensors"), "other bits");
}

#[test]
fn changed_data_is_told() {
    let folder = workspace(&with_file());
    let path = folder.path();
    std::fs::write(path.join("rows.csv"), rows("")).expect("written");
    succeed(path, &["train", "net.ansatz", "--run", "run", "--stop-after", "5"]);
    let other = rows("").replace("\n0,5,10,", "\n0,5,10.5,");
    assert_ne!(other, rows(""));
    for (text, words) in [(other, "`x` has other values"), (rows("1,2,3,4,5,6,0\n"), "there were 40 samples")] {
        std::fs::write(path.join("rows.csv"), text).expect("written");
        let output = run(path, &["resume", "run"]);
        assert!(output.status.code() == Some(2) && errors(&output).contains(words), "{}", errors(&output));
        assert!(errors(&output).contains("--changed-data"), "{}", errors(&output));
    }
    let output = run(path, &["resume", "run", "--changed-data"]);
    assert!(output.status.success() && errors(&output).contains("the data have changed"), "{}", errors(&output));
}

#[test]
fn a_run_goes_on_at_its_level() {
    let folder = workspace(MODEL);
    let path = folder.path();
    let portable = ["--cpu", "portable"];
    succeed(path, &[&["train", "net.ansatz", "--run", "whole"][..], &portable].concat());
    succeed(path, &[&["train", "net.ansatz", "--run", "run", "--stop-after", "5"][..], &portable].concat());
    succeed(path, &["resume", "run"]);
    assert!(bytes(path, "whole/last.safetensors") == bytes(path, "run/last.safetensors"), "other bits");
    if ansatz::machine::detect() == ansatz::machine::Level::Portable {
        return;
    }
    succeed(path, &[&["train", "net.ansatz", "--run", "other", "--stop-after", "5"][..], &portable].concat());
    let best = ansatz::machine::detect().to_string();
    let output = run(path, &["resume", "other", "--cpu", &best]);
    assert!(output.status.success() && errors(&output).contains("the run was at portable"), "{}", errors(&output));
}

/// Saves often, so that few moments are without a save under way.
fn often() -> String {
    MODEL.replace("  metrics", "  save      = 2 steps\n  keep      = best(test.loss), last(2)\n  metrics")
}

/// Goes on with a run, or starts it where it had not begun, and compares it to one that nothing happened to.
fn recovers(path: &Path, run: &str, what: &str) {
    if path.join(run).join("run.json").exists() {
        succeed(path, &["resume", run]);
    } else {
        succeed(path, &["train", "net.ansatz", "--run", run]);
    }
    for file in ["last.safetensors", "last-22.safetensors", "best.safetensors", "weights.safetensors"] {
        let same = bytes(path, &format!("whole/{file}")) == bytes(path, &format!("{run}/{file}"));
        assert!(same, "{what}: other bits in {file}");
    }
    let entries = std::fs::read_dir(path.join(run)).expect("the run");
    let names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into()).collect();
    assert!(!names.iter().any(|name| name.ends_with(".tmp")), "{what}: {names:?}");
}

#[test]
fn a_run_whose_best_weights_are_lost_is_finished_all_the_same() {
    let folder = workspace(&often());
    let path = folder.path();
    let lost = |run: &str| {
        let output = self::run(path, &["resume", run]);
        assert!(output.status.success(), "{}", errors(&output));
        assert!(errors(&output).contains("best.safetensors: "), "{}", errors(&output));
        assert!(errors(&output).contains("the best weights so far are lost"), "{}", errors(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // After the last step, of which only the weights are missing, nothing more is measured.
    succeed(path, &["train", "net.ansatz", "--run", "run"]);
    for name in ["weights.safetensors", "best.safetensors"] {
        std::fs::remove_file(path.join("run").join(name)).expect("removed");
    }
    assert!(lost("run").contains("no weights with a finite test.loss"));
    succeed(path, &["resume", "run"]);
    // Damaged in the middle, later ones take their place.
    succeed(path, &["train", "net.ansatz", "--run", "other", "--stop-after", "10"]);
    std::fs::write(path.join("other/best.safetensors"), "torn").expect("written");
    assert!(lost("other").contains("what follows is of these weights"));
}

#[test]
fn no_output_takes_the_place_of_an_input_or_of_a_strangers_file() {
    let folder = workspace(&MODEL.replace("random(samples = 50)", "csv(\"d/t.csv\")"));
    let path = folder.path();
    let rows: String = (0..20).map(|row| format!("1,2,3,4,5,{},{}\n", row % 7, row % 3)).collect();
    std::fs::create_dir(path.join("d")).expect("made");
    std::fs::write(path.join("d/t.csv"), format!("a,b,c,d,e,f,label\n{rows}")).expect("written");
    succeed(path, &["train", "net.ansatz", "--run", "run", "--log", "log.jsonl"]);
    std::fs::write(path.join("new.csv"), "a,b,c,d,e,f\n1,2,3,4,5,6\n").expect("written");
    std::fs::hard_link(path.join("new.csv"), path.join("same.csv")).expect("linked");
    std::fs::write(path.join("notes.txt"), "mine").expect("written");
    let weights = "run/weights.safetensors";
    let train = ["train", "net.ansatz", "--run", "other"];
    let predict = ["predict", "net.ansatz", "--weights", weights, "--input", "new.csv"];
    let (input, foreign) = ("would take the place of a file that this command reads", "not a step log");
    let cases: [(&[&str], &[&str], &str); 14] = [
        (&["build", "net.ansatz"], &["-o", "./net.ansatz"], input),
        (&["build", "net.ansatz"], &["-o", "d/t.csv"], input),
        (&train, &["--log", "net.ansatz"], input),
        (&train, &["--log", "d/t.csv"], input),
        (&train, &["--init", weights, "--log", weights], input),
        (&train, &["--log", "notes.txt"], foreign),
        (&["resume", "run"], &["--log", "notes.txt"], "the run is complete"),
        (&predict, &["--output", weights], input),
        (&predict, &["--output", "same.csv"], input),
        (&predict, &["--output", "net.ansatz"], input),
        (&predict[..4], &["--output", "d/t.csv"], input),
        (&["report", "run"], &["--output", "net.ansatz"], "not a page"),
        (&["report", "run"], &["--output", "run/last.safetensors"], "not a page"),
        (&["report", "run", "run"], &["--output", "notes.txt"], "not a page"),
    ];
    let names = ["net.ansatz", "d/t.csv", "new.csv", "notes.txt", weights, "run/last.safetensors"];
    let before = names.map(|name| bytes(path, name));
    for (command, output, words) in cases {
        let arguments = [command, output].concat();
        let output = run(path, &arguments);
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &errors(&output);
        assert!(told.contains(words), "{arguments:?}: {told}");
        assert!(names.map(|name| bytes(path, name)) == before, "{arguments:?}");
    }
    assert!(!path.join("other").exists(), "nothing has begun");
    for name in ["out.html", "out.jsonl"] {
        std::fs::write(path.join(name), "").expect("written");
    }
    for _ in 0..2 {
        succeed(path, &["report", "run", "--output", "out.html"]);
        succeed(path, &[&predict[..], &["--output", "out.jsonl"]].concat());
    }
    succeed(path, &[&train[..], &["--log", "log.jsonl"]].concat());
}

#[test]
fn a_folder_for_a_run_is_empty_of_what_a_run_writes() {
    let folder = workspace(MODEL);
    let path = folder.path();
    std::fs::create_dir(path.join("mine")).expect("made");
    std::fs::write(path.join("mine/metrics.jsonl"), "mine").expect("written");
    let output = run(path, &["train", "net.ansatz", "--run", "mine"]);
    assert!(
        errors(&output).contains("mine holds `metrics.jsonl`, which a run would write over"),
        "{}",
        errors(&output)
    );
    assert_eq!(bytes(path, "mine/metrics.jsonl"), b"mine");
    succeed(path, &["train", "net.ansatz", "--run", "a run", "--stop-after", "1"]);
    let output = run(path, &["train", "net.ansatz", "--run", "a run"]);
    assert!(errors(&output).contains("`ansatz resume 'a run'` goes on with it"), "{}", errors(&output));
    let mut resume = command(path, &["resume", "a run"]);
    let output = resume.env("ANSATZ_CPU", "").output().expect("the binary runs");
    assert!(output.status.success(), "an empty level is none: {}", errors(&output));
    std::fs::write(path.join("runs"), "no folder").expect("written");
    for command in ["train", "sweep"] {
        let output = run(path, &[command, "net.ansatz"]);
        assert!(errors(&output).contains("runs: ") && errors(&output).contains("with `--run FOLDER`"), "{command}");
    }
}

#[test]
fn killed_runs_are_gone_on_with_to_the_same_bits() {
    let folder = workspace(&often());
    let path = folder.path();
    let began = Instant::now();
    succeed(path, &["train", "net.ansatz", "--run", "whole"]);
    let whole = began.elapsed();
    for part in 1..=10 {
        let run = format!("killed{part}");
        let mut child = command(path, &["train", "net.ansatz", "--run", &run]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
        std::thread::sleep(whole * part / 11);
        child.kill().expect("killed");
        child.wait().expect("ended");
        recovers(path, &run, &format!("killed after {part}/11 of its time"));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_the_system_cuts_off_loses_nothing() {
    let folder = workspace(&often());
    let path = folder.path();
    succeed(path, &["train", "net.ansatz", "--run", "whole"]);
    let mut refused = 0;
    for kibibytes in 0..12 {
        let run = format!("limit{kibibytes}");
        // No file may grow beyond the limit; the write that would is refused, in the middle of the file.
        let script = format!("trap '' XFSZ; ulimit -f {kibibytes}; exec \"$0\" train net.ansatz --run {run}");
        let output =
            Command::new("bash").args(["-c", &script, env!("CARGO_BIN_EXE_ansatz")]).current_dir(path).output();
        let output = output.expect("bash runs");
        if !output.status.success() {
            refused += 1;
            assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
            assert!(errors(&output).contains(&run), "no file is named: {}", errors(&output));
        }
        recovers(path, &run, &script);
    }
    assert!(refused > 2, "the limits refused nothing");
}
