//! Trainers: built by the command, run without it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use ansatz::machine::{self, Level};
use ansatz::runtime::checkpoint::{self, Note};
use ansatz_trainer::contents;

use crate::indices::{DATA as TOKENS, model as model_of_tokens, table};
use crate::train::{MODEL, succeed};

/// A trainer called `t`, in its folder, with nothing of this process's environment.
fn trainer(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("./t");
    command.args(arguments).current_dir(folder).env_clear();
    loop {
        match command.output() {
            // A process that another test is starting holds the file that was just written open until it runs its program.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            output => return output.expect("the trainer starts"),
        }
    }
}

/// Standard output and error of a trainer that succeeds.
#[track_caller]
fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let output = trainer(folder, arguments);
    let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {words}");
    words
}

/// What a trainer says that could not run.
#[track_caller]
fn refused(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = trainer(folder, arguments);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {words}");
    words
}

/// A folder with a trainer of this model and its file.
pub fn built(text: &str, options: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("net.ansatz"), text).expect("written");
    succeed(folder.path(), &[&["build", "net.ansatz", "-o", "t"], options].concat());
    folder
}

/// Tensors and note of a file of a run.
fn read(folder: &Path, file: &str) -> (BTreeMap<String, Vec<u8>>, Note) {
    let (tensors, note) = checkpoint::load(&folder.join(file)).expect("a checkpoint");
    (tensors.into_iter().map(|(name, tensor)| (name, tensor.bytes.into_owned())).collect(), note)
}

fn bytes(folder: &Path, file: &str) -> Vec<u8> {
    std::fs::read(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn a_trainer_gives_the_files_of_the_command_on_every_level_at_any_number_of_threads() {
    let folder = built(MODEL, &[]);
    let folder = folder.path();
    for level in Level::available() {
        let run = format!("ansatz-{level}");
        succeed(folder, &["train", "net.ansatz", "--run", &run, "--cpu", level.name(), "--threads", "2"]);
        let expected = bytes(folder, &format!("{run}/last.safetensors"));
        std::fs::rename(folder.join("net.ansatz"), folder.join("hidden")).expect("renamed");
        for threads in ["1", "2", "3", "7"] {
            let run = format!("t-{level}-{threads}");
            succeeds(folder, &["train", "--run", &run, "--cpu", level.name(), "--threads", threads]);
            assert!(bytes(folder, &format!("{run}/last.safetensors")) == expected, "{level} at {threads} threads");
        }
        std::fs::rename(folder.join("hidden"), folder.join("net.ansatz")).expect("renamed");
    }
}

#[test]
fn trainers_of_shipped_models_give_the_bits_of_the_command() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["models/digits.ansatz", "models/mnist_cnn.ansatz", "benches/models/gpt-tiny.ansatz"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = root.join(file);
        let path = path.to_str().expect("UTF-8");
        succeed(folder.path(), &["build", path, "-o", "t"]);
        for level in Level::available() {
            let run = format!("ansatz-{level}");
            succeed(folder.path(), &["train", path, "--run", &run, "--cpu", level.name(), "--steps", "3"]);
            let own = format!("t-{level}");
            succeeds(folder.path(), &["train", "--run", &own, "--cpu", level.name(), "--steps", "3"]);
            let [theirs, own] = [run, own].map(|run| bytes(folder.path(), &format!("{run}/last.safetensors")));
            assert!(own == theirs, "{file} with {level}");
        }
    }
}

#[test]
fn a_trainer_resumes_evaluates_and_predicts_as_the_command_does() {
    let folder = built(MODEL, &[]);
    let folder = folder.path();
    succeed(folder, &["train", "net.ansatz", "--run", "whole"]);
    // Begun by one and gone on with by the other, both ways.
    succeeds(folder, &["train", "--run", "a", "--stop-after", "7"]);
    let words = Command::new(env!("CARGO_BIN_EXE_ansatz")).args(["resume", "a"]).current_dir(folder).output();
    let words = String::from_utf8_lossy(&words.expect("it runs").stderr).into_owned();
    assert!(words.contains("is a trainer") && words.contains("--model FILE"), "{words}");
    succeed(folder, &["resume", "a", "--model", "net.ansatz"]);
    succeed(folder, &["train", "net.ansatz", "--run", "b", "--stop-after", "11"]);
    succeeds(folder, &["resume", "b", "--threads", "3"]);
    for run in ["a", "b"] {
        assert!(
            read(folder, "whole/last.safetensors").0 == read(folder, &format!("{run}/last.safetensors")).0,
            "{run}"
        );
    }
    let weights = ["--weights", "whole/weights.safetensors"];
    for [command, options @ ..] in [["eval", "--json"], ["predict", "--raw"]] {
        let theirs = succeed(folder, &[&[command, "net.ansatz"], &weights[..], &options].concat());
        let own = trainer(folder, &[&[command], &weights[..], &options].concat());
        assert_eq!(String::from_utf8_lossy(&own.stdout), theirs, "{command}");
    }
}

#[test]
fn other_data_of_the_same_form_train_by_whole_batches_and_evaluate_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let model = model_of_tokens(TOKENS, "cross_entropy(label)", "accuracy");
    std::fs::write(folder.join("net.ansatz"), &model).expect("written");
    std::fs::write(folder.join("d.csv"), table(7, 1)).expect("written");
    succeed(folder, &["build", "net.ansatz", "-o", "t"]);
    std::fs::create_dir(folder.join("other")).expect("made");
    std::fs::write(folder.join("other/d.csv"), table(7, 1) + "5,5,0\n").expect("written");
    let words = refused(folder, &["train", "--data", "other", "--run", "r"], 2);
    assert!(words.contains("the last batch of an epoch has 1 samples") && words.contains("--drop-last"), "{words}");
    let words = succeeds(folder, &["train", "--data", "other", "--run", "r", "--drop-last"]);
    assert!(words.contains("2 steps of 2"), "{words}");
    succeed(folder, &["train", "net.ansatz", "--set", "data.folder=other", "--run", "a", "--drop-last"]);
    assert!(read(folder, "r/last.safetensors").0 == read(folder, "a/last.safetensors").0);
    let loss = |text: String| serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["loss"].as_f64();
    let options = ["--weights", "a/weights.safetensors", "--split", "train", "--json"];
    let theirs = loss(succeed(folder, &[&["eval", "net.ansatz"], &options[..]].concat())).expect("a loss");
    let own = trainer(folder, &[&["eval"], &options[..]].concat());
    let own = loss(String::from_utf8_lossy(&own.stdout).into_owned()).expect("a loss");
    // Sample by sample: the same sums in another order.
    assert!((own - theirs).abs() < 1e-6, "{own} and {theirs}");
    std::fs::write(folder.join("other/d.csv"), table(10, 1)).expect("written");
    let words = refused(folder, &["train", "--data", "other", "--run", "s"], 1);
    assert!(words.contains("`ids` is 10, but the model reads at 0 to 9"), "{words}");
}

/// Tokens of a table in which a dot, which as a path leads everywhere, stands for what is missing.
fn with_dots() -> String {
    TOKENS.replace("\"d.csv\"", "\"d.csv\", missing = \".\"")
}

#[test]
fn data_lie_where_they_lay_when_the_trainer_was_built_or_beside_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let [models, trainers, elsewhere] = ["models", "trainers", "elsewhere"].map(|name| folder.join(name));
    [&models, &trainers, &elsewhere].into_iter().for_each(|folder| std::fs::create_dir(folder).expect("made"));
    let model = model_of_tokens(&with_dots(), "cross_entropy(label)", "accuracy");
    std::fs::write(models.join("net.ansatz"), &model).expect("written");
    std::fs::write(models.join("d.csv"), table(7, 1)).expect("written");
    succeed(folder, &["build", "models/net.ansatz", "-o", "trainers/t"]);
    succeeds(&trainers, &["train", "--run", "r"]);
    std::fs::copy(trainers.join("t"), elsewhere.join("t")).expect("copied");
    std::fs::rename(&models, folder.join("gone")).expect("renamed");
    let words = refused(&elsewhere, &["train", "--run", "r"], 1);
    assert!(words.contains("there is no such file") && words.contains("d.csv"), "{words}");
    let beside = std::fs::canonicalize(&elsewhere).expect("there").display().to_string();
    assert!(words.contains("with `--data FOLDER`") && words.contains(&format!(" and in {beside}")), "{words}");
    let words = refused(&elsewhere, &["train", "--run", "r", "--data", "../trainers"], 1);
    assert!(words.contains("trainers, which is what `--data` names"), "{words}");
    succeeds(&elsewhere, &["train", "--run", "r", "--data", "../gone"]);
    std::fs::write(elsewhere.join("d.csv"), table(7, 1)).expect("written");
    succeeds(&elsewhere, &["train", "--run", "s"]);
    // The way back to the data leads to a folder wherever the trainer is.
    let [below, far] = ["gone/below", "far/below"].map(|name| folder.join(name));
    [&below, &far].into_iter().for_each(|folder| std::fs::create_dir_all(folder).expect("made"));
    succeed(folder, &["build", "gone/net.ansatz", "-o", "gone/below/t"]);
    succeeds(&below, &["train", "--run", "r"]);
    std::fs::copy(below.join("t"), far.join("t")).expect("copied");
    std::fs::write(far.join("d.csv"), table(7, 1)).expect("written");
    succeeds(&far, &["train", "--run", "r"]);
}

#[test]
fn a_trainer_with_its_data_needs_no_file_beside_it_and_takes_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let model = model_of_tokens(&with_dots(), "cross_entropy(label)", "accuracy");
    std::fs::write(folder.join("net.ansatz"), &model).expect("written");
    std::fs::write(folder.join("d.csv"), table(7, 1)).expect("written");
    succeed(folder, &["build", "net.ansatz", "-o", "t", "--embed-data"]);
    let carried = contents::open(&folder.join("t")).expect("read").expect("a trainer").data().expect("read");
    assert_eq!(Vec::from_iter(carried.expect("data").keys()), [Path::new("d.csv")], "`missing` names no folder");
    succeed(folder, &["train", "net.ansatz", "--run", "a"]);
    std::fs::create_dir(folder.join("other")).expect("made");
    std::fs::write(folder.join("other/d.csv"), table(3, 2)).expect("written");
    std::fs::remove_file(folder.join("d.csv")).expect("removed");
    succeeds(folder, &["train", "--run", "r"]);
    assert!(bytes(folder, "r/last.safetensors") == bytes(folder, "a/last.safetensors"));
    succeeds(folder, &["train", "--run", "s", "--data", "other"]);
    assert!(read(folder, "s/last.safetensors").0 != read(folder, "a/last.safetensors").0, "other labels");
    let arguments = ["build", "net.ansatz", "-o", "u", "--embed-data"];
    let output =
        Command::new(env!("CARGO_BIN_EXE_ansatz")).args(arguments).current_dir(folder).output().expect("it runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("names no file that is there"));
    std::fs::write(folder.join("net.ansatz"), MODEL).expect("written");
    let output =
        Command::new(env!("CARGO_BIN_EXE_ansatz")).args(arguments).current_dir(folder).output().expect("it runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("the data are made up"));
}

#[test]
fn a_run_whose_data_moved_is_gone_on_with_where_they_are() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let model = model_of_tokens(TOKENS, "cross_entropy(label)", "accuracy");
    std::fs::write(folder.join("net.ansatz"), &model).expect("written");
    let lies_in = |name: &str| {
        std::fs::create_dir(folder.join(name)).expect("made");
        std::fs::write(folder.join(name).join("d.csv"), table(7, 1)).expect("written");
    };
    ["a", "b", "c"].into_iter().for_each(lies_in);
    succeed(folder, &["build", "net.ansatz", "-o", "t", "--set", "data.folder=a"]);
    succeeds(folder, &["train", "--run", "whole"]);
    succeeds(folder, &["train", "--run", "own", "--stop-after", "1"]);
    succeed(folder, &["train", "net.ansatz", "--set", "data.folder=a", "--run", "theirs", "--stop-after", "1"]);
    std::fs::remove_dir_all(folder.join("a")).expect("removed");
    assert!(refused(folder, &["resume", "own"], 1).contains("there is no such file"));
    succeeds(folder, &["resume", "own", "--data", "b"]);
    succeed(folder, &["resume", "theirs", "--data", "c"]);
    for run in ["own", "theirs"] {
        assert!(
            read(folder, "whole/last.safetensors").0 == read(folder, &format!("{run}/last.safetensors")).0,
            "{run}"
        );
    }
}

#[test]
fn settings_that_are_compiled_in_are_refused_and_the_others_taken() {
    let folder = built(MODEL, &["--set", "train.batch=8"]);
    let folder = folder.path();
    let words = refused(folder, &["train", "--run", "r", "--set", "optimizer.lr=0.1"], 2);
    assert!(words.contains("`optimizer.lr` is compiled into this trainer"), "{words}");
    let words = refused(folder, &["train", "--run", "r", "--set", "train.batch=9"], 2);
    assert!(words.contains("this trainer was built with train.batch=8"), "{words}");
    for (setting, expected) in [
        ("train.length=5", "a length is such as"),
        ("train.seed=x", "a seed is a whole number"),
        ("train.drop_last=perhaps", "neither true nor false"),
        ("optimzer.lr=3", "there is no setting `optimzer.lr`; did you mean `optimizer.lr`?"),
        ("train.bach=3", "did you mean `train.batch`?"),
        ("sed=3", "did you mean `train.seed`?"),
        ("colour=3", "there is no setting `colour`; a trainer takes train.length"),
    ] {
        let words = refused(folder, &["train", "--run", "r", "--set", setting], 2);
        assert!(words.contains(expected), "{words}");
    }
    for options in [["--log", "l", "--log-grads"], ["--profile", "--run", "r"]] {
        let words = refused(folder, &[&["train"], &options[..]].concat(), 2);
        assert!(words.contains("trainer"), "{words}");
    }
    succeeds(folder, &["train", "--run", "r", "--set", "batch=8", "--seed", "5", "--epochs", "2"]);
    succeed(folder, &["train", "net.ansatz", "--run", "a", "--set", "train.batch=8", "--seed", "5", "--epochs", "2"]);
    assert!(read(folder, "r/last.safetensors").0 == read(folder, "a/last.safetensors").0);
    // How weights were trained does not matter to what they say; what they are of does.
    let other = ["--set", "optimizer.lr=0.1", "--set", "train.batch=9", "--seed", "5", "--epochs", "1"];
    succeed(folder, &[&["train", "net.ansatz", "--run", "b"], &other[..]].concat());
    for command in ["eval", "predict"] {
        succeeds(folder, &[command, "--weights", "b/weights.safetensors"]);
    }
    let words = refused(folder, &["eval", "--weights", "b/weights.safetensors", "--set", "optimizer.lr=0.1"], 2);
    assert!(words.contains("`optimizer.lr` is compiled into this trainer"), "{words}");
    let words = succeeds(folder, &["eval", "--weights", "r/weights.safetensors"]);
    assert!(words.contains("12 samples"), "{words}");
}

#[test]
fn runs_of_trainers_are_compared_by_what_they_were_built_with() {
    let folder = built(MODEL, &["--set", "optimizer.lr=0.01", "--target-cpu", "portable"]);
    let folder = folder.path();
    succeeds(folder, &["train", "--run", "a", "--epochs", "1"]);
    succeed(folder, &["train", "net.ansatz", "--run", "b", "--epochs", "1", "--set", "optimizer.lr=0.01"]);
    succeed(
        folder,
        &["train", "net.ansatz", "--run", "c", "--epochs", "1", "--set", "optimizer.lr=0.02", "--seed", "0"],
    );
    let same = succeed(folder, &["report", "a", "b"]);
    assert!(!same.contains("optimizer.lr"), "{same}");
    let differs = succeed(folder, &["report", "a", "c"]);
    assert!(differs.contains("optimizer.lr") && differs.contains("0.01") && differs.contains("0.02"), "{differs}");
    assert!(!differs.contains("seed"), "{differs}");
}

#[test]
fn a_trainer_for_one_level_holds_it_alone() {
    let folder = built(MODEL, &["--target-cpu", "portable"]);
    let folder = folder.path();
    succeeds(folder, &["train", "--run", "r"]);
    assert_eq!(read(folder, "r/last.safetensors").1.recipe.expect("a recipe").level, "portable");
    if machine::detect() > Level::Portable {
        let words = refused(folder, &["train", "--run", "s", "--cpu", "avx2"], 2);
        assert!(words.contains("there is no code for avx2; there is for portable"), "{words}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_ansatz"))
        .args(["build", "net.ansatz", "-o", "x", "--target-cpu", "sparc"])
        .current_dir(folder)
        .output()
        .expect("it runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no instruction set `sparc`"));
    assert!(!folder.join("x").exists());
}

#[test]
fn a_trainer_tells_what_it_is() {
    let folder = built(MODEL, &[]);
    let folder = folder.path();
    let words = succeeds(folder, &["info"]);
    for part in
        ["model     Net, ", "length    3 epochs, batches of 9, seed 0", "source = random(samples = 58)", "code avx2"]
    {
        assert!(words.contains(part), "no {part:?} in {words}");
    }
    assert!(succeeds(folder, &["info", "--text"]).contains(MODEL.trim()));
    assert!(succeeds(folder, &["info", "--licences"]).contains("Apache License"));
    let plan = succeed(folder, &["plan", "net.ansatz"]);
    assert_eq!(String::from_utf8_lossy(&trainer(folder, &["info", "--plan"]).stdout).trim_end(), plan.trim_end());
}

#[test]
fn what_is_not_finite_is_traced_to_its_line_by_a_trainer_too() {
    let text = MODEL.replace("-> Dropout(0.2)", "-> log -> Dropout(0.2)");
    let folder = built(&text, &[]);
    let words = refused(folder.path(), &["train", "--run", "r"], 2);
    let line = 1 + text.lines().position(|line| line.contains("-> log ->")).expect("the line");
    assert!(words.contains("is not finite at step 1"), "{words}");
    assert!(words.contains(&format!("net.ansatz:{line}:")), "{words}");
}

#[test]
fn changed_and_cut_trainers_are_refused() {
    let folder = built(MODEL, &["--target-cpu", "portable"]);
    let folder = folder.path();
    let whole = bytes(folder, "t");
    // Behind the program: the run, the code, the directory of both. Written in place: whoever may run the file still may.
    let write = |bytes: &[u8]| std::fs::write(folder.join("t"), bytes).expect("written");
    let mut found = std::collections::BTreeSet::new();
    let carrier = contents::open(&folder.join("t")).expect("read").expect("a trainer");
    let carried: u64 = carrier.sizes().map(|(_, bytes)| bytes).sum();
    for from_end in std::iter::once(30).chain((500..usize::try_from(carried).expect("small")).step_by(1000)) {
        let mut changed = whole.clone();
        changed[whole.len() - from_end] ^= 1;
        write(&changed);
        let output = trainer(folder, &["train", "--steps", "1", "--run", &format!("r{from_end}")]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        match words.split_once("is damaged: the checksum of its ") {
            Some((_, part)) => {
                assert_eq!(output.status.code(), Some(2), "{words}");
                found.insert(part.split(" does not hold").next().unwrap_or_default().to_string());
            }
            // What a run does not read, or the program itself.
            None => assert!(output.status.success(), "{from_end}: {words}"),
        }
    }
    assert_eq!(Vec::from_iter(found), ["code portable", "directory", "run"]);
    let mut other = whole.clone();
    *other.last_mut().expect("a tail") = 9;
    write(&other);
    assert!(refused(folder, &["info"], 2).contains("another version of ansatz"));
    // Without its last bytes it is a program that carries nothing.
    write(&whole[..whole.len() - 1]);
    assert!(refused(folder, &["info"], 2).contains("the run of this trainer is missing or cut"));
    write(&[&whole[..], b"\n"].concat());
    assert!(refused(folder, &["train"], 2).contains("the run of this trainer is missing or cut"));
}
