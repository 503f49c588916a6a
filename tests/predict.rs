//! Prediction and evaluation as a user meets them: what the run fitted holds for new data, and answers are in words.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn ansatz(folder: &Path, arguments: &[&str], input: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ansatz"));
    command.args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    // A program that fails before it reads closes the pipe.
    let _ = child.stdin.take().expect("piped").write_all(input.unwrap_or_default().as_bytes());
    child.wait_with_output().expect("the binary ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output and standard error of a command that succeeds.
fn succeed(folder: &Path, arguments: &[&str], input: Option<&str>) -> (String, String) {
    let output = ansatz(folder, arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// Standard error of a command that fails without a panic.
fn fail(folder: &Path, arguments: &[&str]) -> String {
    let output = ansatz(folder, arguments, None);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}: {:?} {}", output.status, text(&output.stdout));
    text(&output.stderr)
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("made");
    std::fs::write(path, content).expect("written");
}

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
    std::fs::read_to_string(path).expect("shipped")
}

/// The columns of a table without quotes.
struct Table {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn parse(text: &str) -> Self {
        let mut lines = text.lines().map(|line| line.split(',').map(str::to_string).collect::<Vec<_>>());
        Self { names: lines.next().expect("a header"), rows: lines.collect() }
    }

    fn column(&self, name: &str) -> usize {
        self.names.iter().position(|known| known == name).unwrap_or_else(|| panic!("no column {name}"))
    }

    /// Some rows (from 0), columns in reverse order without those named.
    fn reversed(&self, rows: &[usize], without: &[&str]) -> String {
        let mut kept: Vec<usize> =
            (0..self.names.len()).filter(|c| !without.contains(&self.names[*c].as_str())).collect();
        kept.reverse();
        let line = |cells: &[String]| kept.iter().map(|c| cells[*c].as_str()).collect::<Vec<_>>().join(",") + "\n";
        line(&self.names) + &rows.iter().map(|row| line(&self.rows[*row])).collect::<String>()
    }
}

/// The logits of the shipped network in f64, from nothing but the file of weights.
struct Forward {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    columns: Vec<String>,
    stages: Vec<Value>,
}

impl Forward {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("the file of weights");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("a header");
        let note = &header.metadata().as_ref().expect("metadata")["ansatz"];
        let note: Value = serde_json::from_str(note).expect("JSON");
        let fields = note["preparation"]["fields"].as_array().expect("fields");
        let field = fields.iter().find(|field| field["name"] == "measures").expect("the model's input");
        let columns = field["columns"]["named"].as_array().expect("names");
        let tensors = file.iter().map(|(name, view)| {
            let floats = view.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
            (name.to_string(), (view.shape().to_vec(), floats.collect()))
        });
        Self {
            tensors: tensors.collect(),
            columns: columns.iter().map(|name| name.as_str().expect("a name").to_string()).collect(),
            stages: field["stages"].as_array().expect("stages").clone(),
        }
    }

    fn logits(&self, table: &Table, row: usize) -> Vec<f64> {
        let cell = |name: &String| table.rows[row][table.column(name)].parse().unwrap_or(f64::NAN);
        let mut x: Vec<f64> = self.columns.iter().map(cell).collect();
        for stage in &self.stages {
            let pick = |list: &Value, place: usize| {
                let list = list.as_array().expect("a list");
                list[if list.len() == 1 { 0 } else { place }].as_f64().expect("a number")
            };
            for (place, value) in x.iter_mut().enumerate() {
                if let Some(fill) = stage.get("fill") {
                    *value = if value.is_nan() { pick(fill, place) } else { *value };
                } else if let Some(affine) = stage.get("affine") {
                    *value = (*value - pick(&affine[0], place)) * pick(&affine[1], place);
                } else if let Some(clip) = stage.get("clip") {
                    *value = value.max(pick(&clip[0], place)).min(pick(&clip[1], place));
                } else {
                    panic!("a stage that the file does not have: {stage}");
                }
            }
        }
        let hidden: Vec<f64> = self.linear("fc1", &x).into_iter().map(|value| value.max(0.0)).collect();
        self.linear("fc2", &hidden)
    }

    fn linear(&self, layer: &str, x: &[f64]) -> Vec<f64> {
        let (weight, bias) = (&self.tensors[&format!("{layer}.weight")], &self.tensors[&format!("{layer}.bias")]);
        let row = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        weight.1.chunks_exact(weight.0[1]).map(row).zip(&bias.1).map(|(sum, bias)| sum + bias).collect()
    }
}

/// The figure after a word, such as `accuracy 0.9561`.
fn figure(text: &str, word: &str) -> f64 {
    let rest = text.split(word).nth(1).unwrap_or_else(|| panic!("no {word} in {text}"));
    rest.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn held_out_rows_without_labels_get_the_bits_of_the_runs_own_test_anywhere() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let model = shipped("breast_cancer.ansatz");
    write(home.path(), "cancer.ansatz", &model);
    write(home.path(), "data/breast_cancer.csv", shipped("data/breast_cancer.csv"));
    let table = Table::parse(&shipped("data/breast_cancer.csv"));
    assert!(table.rows.iter().any(|row| row.iter().any(String::is_empty)), "some values are missing");

    // The split has no seed of its own, so the seed of the run decides which rows are held out.
    let train = ["train", "cancer.ansatz", "--run", "a run", "--seed", "5", "--epochs", "4", "--set", "train.batch=24"];
    let (said, _) = succeed(home.path(), &train, None);
    let own = said.lines().find(|line| line.starts_with("test:")).expect("the run's own test");
    let next = said.lines().find_map(|line| line.strip_prefix("next: ansatz ")).expect("what to do next");
    assert_eq!(next, "eval cancer.ansatz --weights 'a run/weights.safetensors'");

    // The printed line scores the rows that the run tested on, and so do the predictions.
    let weights = "a run/weights.safetensors";
    let (json, told) = succeed(home.path(), &["eval", "cancer.ansatz", "--weights", weights, "--json"], None);
    assert!(!told.contains("warning"), "{told}");
    let report: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["split"], "test");
    assert_eq!(format!("{:.4}", report["loss"].as_f64().expect("a loss")), format!("{:.4}", figure(own, "loss")));
    let (reference, _) = succeed(home.path(), &["predict", "cancer.ansatz", "--weights", weights, "--raw"], None);
    let reference = rows(&reference);
    assert_eq!(reference.len(), 114);
    let (words, _) = succeed(home.path(), &["predict", "cancer.ansatz", "--weights", weights], None);
    let words = rows(&words);
    let held: Vec<usize> = reference.iter().map(|row| row["row"].as_u64().expect("a row") as usize - 1).collect();
    let diagnosis = table.column("diagnosis");
    let right =
        held.iter().zip(&words).filter(|(row, answer)| answer["class"] == table.rows[**row][diagnosis].as_str());
    assert_eq!(format!("{:.4}", right.count() as f64 / 114.0), format!("{:.4}", figure(own, "accuracy")));

    // Elsewhere: the model file and the weights alone, and rows without labels, columns in another order.
    let away = tempfile::tempdir().expect("a temporary folder");
    write(away.path(), "m/cancer.ansatz", &model);
    std::fs::copy(home.path().join(weights), away.path().join("w.safetensors")).expect("copied");
    std::fs::remove_dir_all(home.path().join("data")).expect("the training file goes");
    // A column too many is told; what stands in it does not matter.
    let unknown = table.reversed(&held, &[]).replace("malignant", "").replace("benign", "?");
    write(away.path(), "new.csv", unknown);
    let predict = ["predict", "m/cancer.ansatz", "--weights", "w.safetensors", "--raw", "--input"];
    let (all, told) = succeed(away.path(), &[&predict[..], &["new.csv"]].concat(), None);
    assert!(told.contains("the model takes none of it: diagnosis"), "{told}");
    let all = rows(&all);
    assert_eq!(all.len(), reference.len());
    for (place, (new, own)) in all.iter().zip(&reference).enumerate() {
        assert_eq!(new["row"], place as u64 + 1);
        assert_eq!(new["output"], own["output"], "row {place} all at once");
    }
    for place in 0..held.len() {
        let one = table.reversed(&held[place..=place], &["diagnosis"]);
        let (line, told) = succeed(away.path(), &[&predict[..], &["-"]].concat(), Some(&one));
        assert_eq!(rows(&line)[0]["output"], reference[place]["output"], "row {place} by itself");
        assert!(told.is_empty(), "{told}");
    }

    // f32 sums of 30 and of 16 products of numbers of about 1.
    let forward = Forward::read(&away.path().join("w.safetensors"));
    for (row, answer) in held.iter().zip(&reference) {
        for (exact, ours) in forward.logits(&table, *row).iter().zip(answer["output"].as_array().expect("logits")) {
            let ours = ours.as_f64().expect("a number");
            assert!((exact - ours).abs() <= 1e-5 * exact.abs().max(1.0), "row {row}: {exact} and {ours}");
        }
    }
}

/// Two clouds with words for classes, one of them a number; a target in thousands.
fn clouds(folder: &Path, loss: &str, output: usize, field: &str) {
    let text = format!(
        "model M {{\n  input x: [N, 2]\n  return x -> fc: Linear({output})\n}}\n\ndata d {{\n  source = csv(\"t.csv\")\n  \
         x: f32[2] = columns(\"a\", \"b\")\n  {field}\n  split = in_order(test = 10)\n  \
         prepare.x = fill(mean) -> min_max(per_feature)\n  prepare.price = log1p -> normalize(whole)\n}}\n\n\
         train M on d {{\n  loss      = {loss}\n  optimizer = adam(lr = 0.1)\n  batch     = 10\n  length    = 30 epochs\n}}\n"
    );
    let text = if field.starts_with("price") {
        text
    } else {
        text.replace("  prepare.price = log1p -> normalize(whole)\n", "")
    };
    write(folder, "m.ansatz", text);
    let mut table = "a,b,kind,price\n".to_string();
    for row in 0..60 {
        let (side, word) = if row % 2 == 0 { (1.0, "7") } else { (-1.0, "oak") };
        let a = side * 2.0 + f64::from(row % 5) * 0.1;
        table.push_str(&format!("{a},{},{word},{}\n", f64::from(row % 7), 1000.0 * (2.0 + side)));
    }
    write(folder, "t.csv", table);
    succeed(folder, &["train", "m.ansatz", "--run", "run"], None);
}

const PREDICT: [&str; 4] = ["predict", "m.ansatz", "--weights", "run/weights.safetensors"];

#[test]
fn classes_have_their_words_and_probabilities_in_every_format() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    clouds(folder.path(), "cross_entropy(kind)", 2, "kind: class[2]");
    let predict = |more: &[&str]| succeed(folder.path(), &[&PREDICT[..], more].concat(), None).0;
    let answers = rows(&predict(&["--top", "2"]));
    let raw = rows(&predict(&["--raw"]));
    for (answer, raw) in answers.iter().zip(&raw) {
        let expected = if answer["row"].as_u64().expect("a row") % 2 == 1 { "7" } else { "oak" };
        assert_eq!(answer["class"], expected);
        let logits: Vec<f64> = raw["output"].as_array().expect("logits").iter().filter_map(Value::as_f64).collect();
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let likely = logits.iter().fold(0.0, |best: f64, logit| best.max(logit.exp() / sum));
        let (first, second) = (&answer["probability"], &answer["probability_2"]);
        assert!((first.as_f64().expect("a number") - likely).abs() < 1e-6, "{answer} {raw}");
        assert!((first.as_f64().expect("a number") + second.as_f64().expect("a number") - 1.0).abs() < 1e-6);
        assert_ne!(answer["class"], answer["class_2"]);
    }
    let table = predict(&["--format", "csv"]);
    assert!(table.starts_with("row,class,probability\n51,7,"), "{table}");
    predict(&["--format", "npz", "--output", "answers.npz"]);
    let bytes = std::fs::read(folder.path().join("answers.npz")).expect("written");
    let archive = rawzip::ZipArchive::from_slice(&bytes).expect("an archive");
    let mut entries = archive.entries().map(|entry| entry.expect("an entry"));
    let likely = entries.find(|entry| entry.file_path().as_bytes() == b"probability.npy").expect("there");
    let array = archive.get_entry(likely.wayfinder()).expect("there").data();
    let data = &array[array.len() - 10 * 4..];
    assert_eq!(data[..4], (answers[0]["probability"].as_f64().expect("a number") as f32).to_le_bytes());
    // What is refused leaves the older file.
    let model = std::fs::read_to_string(folder.path().join("m.ansatz")).expect("read");
    write(folder.path(), "deep.ansatz", model.replace("-> fc", "-> Linear(5) -> fc"));
    let other = ["predict", "deep.ansatz", "--weights", "run/weights.safetensors", "--output", "answers.npz"];
    assert!(fail(folder.path(), &other).contains("linear.weight"));
    assert!(std::fs::read(folder.path().join("answers.npz")).expect("there") == bytes);
}

#[test]
fn words_that_look_like_numbers_stay_words_and_unknown_columns_are_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    clouds(folder.path(), "cross_entropy(kind)", 2, "kind: class[2]");
    // A table of one class alone, whose word is a number: it is class 0 by its word, not class 7 by its value.
    let t = std::fs::read_to_string(folder.path().join("t.csv")).expect("there");
    let sevens: Vec<&str> = t.lines().filter(|line| !line.contains("oak")).collect();
    write(folder.path(), "t.csv", sevens.join("\n"));
    let (json, told) =
        succeed(folder.path(), &["eval", "m.ansatz", "--weights", "run/weights.safetensors", "--json"], None);
    let report: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["confusion"], serde_json::json!([[10, 0], [0, 0]]));
    assert!(told.contains("not divided as in the run"), "{told}");

    write(folder.path(), "short.csv", "b,c\n1,2\n");
    let told = fail(folder.path(), &[&PREDICT[..], &["--input", "short.csv"]].concat());
    assert!(told.contains("lacks 1 of the 2 columns") && told.contains(": a"), "{told}");
    write(folder.path(), "one.csv", "kind,b,a\n,,2\n");
    let (line, told) = succeed(folder.path(), &[&PREDICT[..], &["--input", "one.csv"]].concat(), None);
    assert_eq!(rows(&line)[0]["class"], "7");
    assert!(told.contains("takes none of it: kind"), "{told}");
}

#[test]
fn words_where_the_run_saw_numbers_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    clouds(folder.path(), "cross_entropy(kind)", 2, "kind: class[2]");
    let words = std::fs::read_to_string(folder.path().join("t.csv")).expect("there");
    write(folder.path(), "t.csv", words.replace(",7,", ",0,").replace("oak", "1"));
    succeed(folder.path(), &["train", "m.ansatz", "--run", "numbers"], None);
    // The first label is still a number: all are words because of the second.
    write(folder.path(), "t.csv", words);
    let weights = "numbers/weights.safetensors";
    for command in ["eval", "predict"] {
        let told = fail(folder.path(), &[command, "m.ansatz", "--weights", weights]);
        let expected = "t.csv: record 2: `kind` is \"oak\", but numbers in the run that made the weights";
        assert!(told.contains(expected), "{told}");
    }
    let told = fail(folder.path(), &["train", "m.ansatz", "--init", weights, "--run", "other"]);
    assert!(told.contains(weights) && told.contains("`kind` was numbers in the run"), "{told}");
}

#[test]
fn one_logit_with_bce_is_a_probability_of_two_classes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    clouds(folder.path(), "bce(kind)", 1, "kind: class[2]");
    let (text, _) = succeed(folder.path(), &PREDICT, None);
    for answer in rows(&text) {
        let expected = if answer["row"].as_u64().expect("a row") % 2 == 1 { "7" } else { "oak" };
        assert_eq!(answer["class"], expected);
        assert!(answer["probability"].as_f64().expect("a number") > 0.5, "{answer}");
    }
    let (table, _) = succeed(folder.path(), &["eval", "m.ansatz", "--weights", "run/weights.safetensors"], None);
    assert!(table.contains("  oak  ") && table.contains("  7    ") && table.contains("precision  recall"), "{table}");
}

#[test]
fn a_scaled_target_comes_back_in_its_own_unit() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    clouds(folder.path(), "mse(price)", 1, "price: f32");
    let (text, _) = succeed(folder.path(), &PREDICT, None);
    for answer in rows(&text) {
        let expected = if answer["row"].as_u64().expect("a row") % 2 == 1 { 3000.0 } else { 1000.0 };
        let price = answer["price"].as_f64().expect("a number");
        assert!((price / expected - 1.0).abs() < 0.2, "{answer}");
    }
}

#[test]
fn settings_of_the_command_line_win_and_say_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    clouds(folder.path(), "cross_entropy(kind)", 2, "kind: class[2]");
    let weights = ["--weights", "run/weights.safetensors"];
    succeed(folder.path(), &["train", "m.ansatz", "--run", "other", "--set", "train.batch=7", "--epochs", "1"], None);
    let (_, quiet) = succeed(folder.path(), &["eval", "m.ansatz", "--weights", "other/weights.safetensors"], None);
    assert!(quiet.is_empty(), "{quiet}");
    let arguments = ["eval", "m.ansatz", "--weights", "other/weights.safetensors", "--set", "batch=5"];
    let (_, told) = succeed(folder.path(), &arguments, None);
    assert!(told.contains("--set batch=5 in place of the run's --set train.batch=7"), "{told}");
    // Another preparation in the file would feed the weights what they have not learned.
    let text = std::fs::read_to_string(folder.path().join("m.ansatz")).expect("there");
    write(folder.path(), "m.ansatz", text.replace(" -> min_max(per_feature)", ""));
    let told = fail(folder.path(), &[&["eval", "m.ansatz"][..], &weights[..]].concat());
    assert!(told.contains("`x` is not prepared as in the run"), "{told}");
}

/// A grey picture of one colour.
fn picture(folder: &Path, name: &str, level: u8) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("made");
    let mut encoder = png::Encoder::new(std::fs::File::create(path).expect("made"), 4, 4);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().and_then(|mut head| head.write_image_data(&[level; 16])).expect("written");
}

#[test]
fn pictures_are_predicted_one_by_one_loose_and_in_folders() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for place in 0..12u8 {
        picture(folder.path(), &format!("train/dark/{place:02}.png"), place);
        picture(folder.path(), &format!("train/light/{place:02}.png"), 255 - place);
    }
    write(
        folder.path(),
        "m.ansatz",
        "model M {\n  input image: [N, 1, 4, 4]\n  return image -> flatten -> fc: Linear(2)\n}\n\ndata d {\n  \
         source = image_folder(\"train\")\n  image: u8[1, 4, 4]\n  label: class[2]\n  \
         prepare.image = normalize(whole)\n}\n\ntrain M on d {\n  loss      = cross_entropy(label)\n  \
         optimizer = adam(lr = 0.1)\n  batch     = 8\n  length    = 5 epochs\n}\n",
    );
    succeed(folder.path(), &["train", "m.ansatz", "--run", "run"], None);
    picture(folder.path(), "train/loose.png", 1);
    let told = fail(folder.path(), &["train", "m.ansatz", "--run", "other"]);
    assert!(told.contains("loose.png") && told.contains("lies in no class folder"), "{told}");
    std::fs::remove_dir_all(folder.path().join("train")).expect("the training pictures go");
    picture(folder.path(), "new/one.png", 250);
    picture(folder.path(), "new/other/two.png", 5);
    write(folder.path(), "new/notes.txt", "no picture");
    let (text, told) = succeed(folder.path(), &[&PREDICT[..], &["--input", "new"]].concat(), None);
    let answers: Vec<(String, String)> = rows(&text)
        .iter()
        .map(|row| {
            (row["file"].as_str().expect("a file").to_string(), row["class"].as_str().expect("a word").to_string())
        })
        .collect();
    assert_eq!(answers.len(), 2);
    assert!(answers[0].0.ends_with("new/one.png") && answers[0].1 == "light", "{answers:?}");
    assert!(answers[1].0.ends_with("new/other/two.png") && answers[1].1 == "dark", "{answers:?}");
    assert!(told.contains("notes.txt"), "{told}");
    let (text, _) = succeed(folder.path(), &[&PREDICT[..], &["--input", "new/other/two.png"]].concat(), None);
    assert_eq!(rows(&text)[0]["class"], "dark");
}

#[test]
fn weights_of_others_are_measured_on_the_items_own_training_split() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    clouds(folder.path(), "cross_entropy(kind)", 2, "kind: class[2]");
    let path = folder.path().join("run/weights.safetensors");
    let bytes = std::fs::read(&path).expect("there");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let plain = safetensors::serialize(file.tensors(), None).expect("written");
    write(folder.path(), "theirs.safetensors", plain);
    let predict = |weights: &str, input: &str| {
        let arguments = ["predict", "m.ansatz", "--weights", weights, "--input", input];
        succeed(folder.path(), &arguments, None)
    };
    write(folder.path(), "one.csv", "b,a\n1,2\n");
    let (theirs, told) = predict("theirs.safetensors", "one.csv");
    assert!(told.contains("measured on the training split of the item"), "{told}");
    assert_eq!(theirs, predict("run/weights.safetensors", "one.csv").0);
    std::fs::remove_file(folder.path().join("t.csv")).expect("the training file goes");
    let told = fail(folder.path(), &["predict", "m.ansatz", "--weights", "theirs.safetensors", "--input", "one.csv"]);
    assert!(told.contains("the item's own data are needed"), "{told}");
}
