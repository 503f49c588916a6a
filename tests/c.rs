//! The C interface: what it refuses, and that a refusal changes nothing. The programs in `examples` show that its steps are
//! those of `ansatz train`; `scripts/check_examples.py` runs them.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::process::Command;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};

use ansatz_c::{
    Kind, Options, Problem, Run, ansatz_count, ansatz_create, ansatz_describe, ansatz_destroy, ansatz_error,
    ansatz_step,
};

use crate::train::succeed;
use crate::trainers::built;

const TEXT: &str = r#"
model Net {
  input x: [N, 6]
  return x -> fc: Linear(8) -> relu -> Dropout(0.3) -> out: Linear(3)
}

data noise {
  source = random(samples = 22)
  x: f32[6]
  label: class[3]
}

train Net on noise {
  loss      = cross_entropy(label)
  optimizer = adam(lr = 0.01)
  batch     = 4
  length    = 2 epochs
  metrics   = accuracy
}
"#;

/// `ansatz_options`, as a C compiler has it.
#[repr(C)]
struct Raw {
    size: usize,
    threads: usize,
    level: *const c_char,
    seed: *const u64,
    total_steps: u64,
    steps_per_epoch: u64,
}

/// The last error of a run, or of this thread.
fn error(run: *const ansatz_c::Handle) -> String {
    // SAFETY: a run that lives, or null; the text lives until the next call.
    unsafe { CStr::from_ptr(ansatz_error(run)) }.to_string_lossy().into_owned()
}

/// A folder with the contents of a run, which are the bytes of its trainer.
fn contents() -> (tempfile::TempDir, Vec<u8>) {
    let folder = built(TEXT, &[]);
    let bytes = std::fs::read(folder.path().join("t")).expect("built");
    (folder, bytes)
}

fn run(contents: &[u8], options: &Options<'_>) -> Result<Run, Problem> {
    // SAFETY: the contents are those of a build, or damaged ones, which are refused before code is run.
    unsafe { Run::create(contents, options) }
}

fn options() -> Options<'static> {
    Options { steps_per_epoch: 6, threads: 1, ..Options::default() }
}

/// The bytes of samples of both fields.
fn samples(rows: usize, from: usize) -> [Vec<u8>; 2] {
    let x = (0..rows * 6).flat_map(|at| (((at + from) % 13) as f32 / 13.0).to_le_bytes()).collect();
    let label = (0..rows).flat_map(|at| (((at + from) % 3) as i32).to_le_bytes()).collect();
    [x, label]
}

fn step(run: &mut Run, rows: usize, from: usize) -> Result<f64, Problem> {
    let [x, label] = samples(rows, from);
    Ok(run.step(rows, &[Some(&x), Some(&label)])?.loss)
}

#[track_caller]
fn refused<T>(result: Result<T, Problem>, words: &str) {
    match result {
        Err(Problem::Refused(refusal)) => assert!(refusal.0.contains(words), "`{words}` is not in: {}", refusal.0),
        Err(other) => panic!("not refused: {other}"),
        Ok(_) => panic!("not refused: {words}"),
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    let (folder, contents) = contents();
    let mut plain = run(&contents, &options()).expect("a run");
    let expected: Vec<f64> = (0..8).map(|from| step(&mut plain, 4, from).expect("a step")).collect();
    let mut own = run(&contents, &options()).expect("a run");
    for (from, loss) in expected.iter().enumerate() {
        let [x, label] = samples(4, from);
        let (image, labels) = (Some(&x[..]), Some(&label[..]));
        refused(own.step(5, &[image, labels]), "there is no step for 5 samples, only for 4 and for 2");
        refused(own.step(0, &[image, labels]), "there is no step for 0 samples");
        refused(own.step(4, &[image]), "2 fields, and 1 were given");
        refused(own.step(4, &[None, labels]), "`x` is NULL");
        refused(own.step(4, &[Some(&x[1..]), labels]), "`x` has 95 bytes, and 4 samples have 96");
        for wrong in [3, -1, i32::MAX] {
            let label: Vec<u8> = [0, 1, 2, wrong].iter().flat_map(|value: &i32| value.to_le_bytes()).collect();
            refused(own.step(4, &[image, Some(&label)]), &format!("is {wrong} in sample 3, but there are 3 classes"));
        }
        refused(own.get("fc.weigh", &mut [0; 4]), "has no `fc.weigh`");
        refused(own.get("fc.bias", &mut [0; 4]), "is 32 bytes, not 4");
        refused(own.set("fc.bias", &[0; 31]), "is 32 bytes, not 31");
        refused(own.set("fc.bias", &[255; 32]), "not finite");
        refused(own.evaluate_finish(), "no evaluation was begun");
        own.evaluate_begin().expect("begun");
        refused(own.evaluate_begin(), "finish it first");
        refused(step(&mut own, 4, from), "finish it first");
        refused(own.evaluate_finish(), "no sample was evaluated");
        own.evaluate_add(3, &[Some(&x[..72]), Some(&label[..12])]).expect("added");
        refused(own.evaluate_add(5, &[image, labels]), "1 to 4 samples");
        let figures = own.evaluate_finish().expect("finished");
        assert!(figures.samples == 3 && figures.loss.is_finite());
        let (mut seven, [x7, _]) = (vec![0; 7 * 12], samples(7, 0));
        let outputs = own.tables().outputs.len();
        let mut predict = |bytes: &mut [u8]| {
            let mut room: Vec<Option<&mut [u8]>> = (1..outputs).map(|_| None).collect();
            room.insert(0, Some(bytes));
            own.predict(7, &[Some(&x7), None], &mut room)
        };
        refused(predict(&mut seven[1..]), "has 83 bytes, not 84");
        predict(&mut seven).expect("predicted without labels");
        assert!(seven.as_chunks::<4>().0.iter().any(|element| f32::from_le_bytes(*element) != 0.0));
        refused(own.save(&folder.path().join("no/such/folder"), Kind::Weights), "No such file");
        refused(own.load(&folder.path().join("net.ansatz"), Kind::Checkpoint), "net.ansatz");
        assert_eq!(step(&mut own, 4, from), Ok(*loss), "step {from}");
    }
}

#[test]
fn a_run_goes_on_from_its_checkpoint_and_from_no_other() {
    let (folder, contents) = contents();
    let [checkpoint, weights] = ["c", "w"].map(|name| folder.path().join(name));
    let mut whole = run(&contents, &options()).expect("a run");
    for from in 0..3 {
        step(&mut whole, 4, from).expect("a step");
    }
    whole.save(&checkpoint, Kind::Checkpoint).expect("saved");
    whole.save(&weights, Kind::Weights).expect("saved");
    let rest = |run: &mut Run| (3..12).map(|from| step(run, 4, from).expect("a step")).collect::<Vec<_>>();
    let expected = rest(&mut whole);
    refused(step(&mut whole, 4, 0), "the run is complete after 12 steps");
    for threads in [1, 3] {
        let mut again = run(&contents, &Options { threads, ..options() }).expect("a run");
        again.load(&checkpoint, Kind::Checkpoint).expect("loaded");
        assert_eq!((again.position(), rest(&mut again)), (3, expected.clone()));
    }
    let mut other = run(&contents, &Options { seed: Some(7), ..options() }).expect("a run");
    refused(other.load(&checkpoint, Kind::Checkpoint), "the seed was 0 and is 7");
    refused(other.load(&weights, Kind::Checkpoint), "is no checkpoint");
    other.load(&weights, Kind::Weights).expect("weights fit any run of the model");
    assert_eq!(other.position(), 0);
    succeed(folder.path(), &["eval", "net.ansatz", "--weights", "w", "--split", "train"]);
    // One that the command wrote is of the same run, whatever its data were.
    succeed(folder.path(), &["train", "net.ansatz", "--run", "r", "--stop-after", "5", "--no-shuffle"]);
    let mut other = run(&contents, &options()).expect("a run");
    other.load(&folder.path().join("r/last.safetensors"), Kind::Checkpoint).expect("loaded");
    assert_eq!(other.position(), 5);
    assert!(step(&mut other, 4, 5).is_ok_and(f64::is_finite));
}

#[test]
fn a_step_whose_loss_is_not_finite_says_so_and_is_taken() {
    let (folder, contents) = contents();
    let mut own = run(&contents, &options()).expect("a run");
    let [weights, checkpoint] = ["w", "c"].map(|name| folder.path().join(name));
    step(&mut own, 4, 0).expect("a step");
    own.save(&weights, Kind::Weights).expect("saved");
    own.save(&checkpoint, Kind::Checkpoint).expect("saved");
    let [mut x, label] = samples(4, 1);
    x[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let problem = own.step(4, &[Some(&x), Some(&label)]).expect_err("not finite");
    assert!(matches!(&problem, Problem::NotFinite(words) if words.contains("not finite at step 2")), "{problem}");
    assert_eq!(own.position(), 2);
    let older = std::fs::read(&checkpoint).expect("saved");
    refused(own.save(&weights, Kind::Weights), "is not finite, which no file holds");
    refused(own.save(&checkpoint, Kind::Checkpoint), "is not finite, which no file holds");
    assert!(std::fs::read(&checkpoint).expect("there") == older);
    // The optimizer's memory is lost too, which weights do not bring back.
    refused(own.load(&weights, Kind::Weights), "`optimizer:fc.weight.m`");
    own.load(&checkpoint, Kind::Checkpoint).expect("loaded");
    let mut plain = run(&contents, &options()).expect("a run");
    step(&mut plain, 4, 0).expect("a step");
    assert_eq!((own.position(), step(&mut own, 4, 1)), (1, step(&mut plain, 4, 1)));
}

#[test]
fn an_output_over_all_samples_is_given_for_a_whole_step_alone() {
    let model = TEXT.replace(
        "return x -> fc: Linear(8) -> relu -> Dropout(0.3) -> out: Linear(3)",
        "y = x -> out: Linear(3)\n  m[c] = mean[n] y[n, c]\n  return y, m",
    );
    let folder = built(&model.replace("cross_entropy(label)", "cross_entropy(y, label)"), &[]);
    let mut own = run(&std::fs::read(folder.path().join("t")).expect("built"), &options()).expect("a run");
    let outputs: Vec<i32> = own.tables().outputs.iter().map(|entry| entry.role).collect();
    assert_eq!(outputs[..2], [0, 1]);
    let mut predict = |rows: usize, with_mean: bool| -> Result<[Vec<f32>; 2], Problem> {
        let ([x, _], mut y, mut m) = (samples(rows, 0), vec![0; rows * 12], vec![0; 12]);
        let mut room = vec![Some(&mut y[..]), with_mean.then_some(&mut m[..])];
        room.resize_with(outputs.len(), || None);
        own.predict(rows, &[Some(&x), None], &mut room)?;
        let numbers = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok([numbers(&y), numbers(&m)])
    };
    for rows in [1, 3, 5, 8] {
        refused(predict(rows, true), &format!("`m` has no value for each sample: it is for 4 samples, not {rows}"));
        predict(rows, false).expect("the other output alone");
    }
    let [y, m] = predict(4, true).expect("as many as the step takes");
    for (class, mean) in m.iter().enumerate() {
        let expected = (0..4).map(|row| y[row * 3 + class]).sum::<f32>() / 4.0;
        assert!((mean - expected).abs() < 1e-6, "{mean} {expected}");
    }
}

#[test]
fn a_run_in_use_refuses_a_second_thread() {
    struct Shared(*mut ansatz_c::Handle);
    // SAFETY: the interface is for any thread, and refuses a second one itself: that is what is tested.
    unsafe impl Sync for Shared {}
    let (_folder, contents) = contents();
    let raw =
        Raw { size: size_of::<Raw>(), threads: 1, level: null(), seed: null(), total_steps: 0, steps_per_epoch: 6 };
    let mut run = null_mut();
    // SAFETY: pointers of what the header asks for; contents were built.
    let status = unsafe { ansatz_create(contents.as_ptr().cast(), contents.len(), (&raw const raw).cast(), &mut run) };
    assert_eq!(status, 0, "{}", error(null()));
    let shared = Shared(run);
    let in_use = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let run = { &shared }.0;
                while !in_use.load(Ordering::Relaxed) {
                    // SAFETY: the run lives; where it is in use the error is this thread's.
                    if unsafe { ansatz_count(run, 0) } == 0 {
                        assert!(error(null()).contains("in use by another thread"));
                        in_use.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    // SAFETY: no thread uses it any more.
    unsafe { ansatz_destroy(run) };
}

#[test]
fn the_text_of_an_error_stays_while_other_threads_use_the_run() {
    let (_folder, contents) = contents();
    let raw =
        Raw { size: size_of::<Raw>(), threads: 1, level: null(), seed: null(), total_steps: 0, steps_per_epoch: 6 };
    let mut run = null_mut();
    // SAFETY: pointers of what the header asks for; contents were built.
    let status = unsafe { ansatz_create(contents.as_ptr().cast(), contents.len(), (&raw const raw).cast(), &mut run) };
    assert_eq!((status, error(run)), (0, String::new()));
    // SAFETY: the run lives.
    let text = unsafe {
        ansatz_count(run, 7);
        ansatz_error(run)
    };
    let address = run as usize;
    std::thread::scope(|scope| {
        for table in [8, 9] {
            scope.spawn(move || {
                let run = address as *mut ansatz_c::Handle;
                for _ in 0..500 {
                    // SAFETY: the run lives.
                    unsafe { ansatz_count(run, table) };
                    let words = error(run);
                    let whole = ["there is no table 8", "there is no table 9", "there is no table 7"];
                    assert!(
                        whole.contains(&&*words) || words.is_empty() || words.contains("another thread"),
                        "{words}"
                    );
                }
            });
        }
    });
    // SAFETY: this thread has asked for no other text.
    assert_eq!(unsafe { CStr::from_ptr(text) }.to_str(), Ok("there is no table 7"));
    // SAFETY: no thread uses it any more.
    unsafe { ansatz_destroy(run) };
}

#[test]
fn options_and_contents_that_are_wrong_make_no_run() {
    let (_folder, contents) = contents();
    refused(run(&contents, &Options { steps_per_epoch: 0, ..options() }), "`steps_per_epoch` is 0");
    refused(run(&contents, &Options { level: Some("mmx"), ..options() }), "choose avx512, avx2 or portable");
    refused(run(b"none", &options()), "no contents");
    let mut damaged = contents.clone();
    let directory = contents.len() - 40;
    damaged[directory] ^= 1;
    assert!(matches!(run(&damaged, &options()), Err(Problem::Refused(_))));
    assert!(matches!(run(&contents[..contents.len() - 1], &options()), Err(Problem::Refused(_))));
}

#[test]
fn pointers_that_are_null_are_told_and_not_followed() {
    let (_folder, contents) = contents();
    let (start, length): (*const c_void, usize) = (contents.as_ptr().cast(), contents.len());
    let mut raw = Raw { size: 0, threads: 1, level: null(), seed: null(), total_steps: 0, steps_per_epoch: 6 };
    let mut run = null_mut();
    // SAFETY: each pointer is null or of what the header asks for; contents were built.
    unsafe {
        assert_eq!(ansatz_create(start, length, null(), &mut run), 1);
        assert_eq!(ansatz_create(null(), length, (&raw const raw).cast(), &mut run), 1);
        assert!(error(null()).contains("is NULL"));
        assert_eq!(ansatz_create(start, length, (&raw const raw).cast(), &mut run), 1);
        assert!(run.is_null() && error(null()).contains("the options have 0 bytes"));
        raw.size = size_of::<Raw>();
        let level = CString::new("quantum").expect("plain");
        raw.level = level.as_ptr();
        assert_eq!(ansatz_create(start, length, (&raw const raw).cast(), &mut run), 1);
        assert!(error(null()).contains("no instruction set `quantum`"));
        raw.level = null();
        assert_eq!(ansatz_create(start, length, (&raw const raw).cast(), &mut run), 0, "{}", error(null()));
        assert_eq!((ansatz_count(run, 0), ansatz_count(run, 3), ansatz_count(run, 9)), (2, 1, 0));
        assert!(error(run).contains("no table 9"));
        assert_eq!(ansatz_describe(run, 0, 2, null_mut()), 1);
        let mut loss = 1.0;
        let step = |count: usize, loss: &mut f64| -> c_int { ansatz_step(run, null(), count, 4, loss, null_mut()) };
        assert_eq!((step(2, &mut loss), loss.is_nan()), (1, true), "no number that looks like a loss");
        assert!(error(run).contains("the fields are NULL"));
        assert_eq!(ansatz_step(null_mut(), null(), 2, 4, null_mut(), null_mut()), 1);
        assert!(error(null()).contains("the run is NULL"));
        ansatz_destroy(run);
        ansatz_destroy(null_mut());
    }
}

#[test]
fn an_object_has_its_header_and_what_it_needs() {
    let (folder, _) = contents();
    let folder: &Path = folder.path();
    let words = succeed(folder, &["build", "net.ansatz", "--emit", "obj", "-o", "my-net.o"]);
    assert!(words.contains("wrote my-net.o") && words.contains("ansatz.h"), "{words}");
    let header = std::fs::read_to_string(folder.join("my-net.h")).expect("written");
    for line in ["extern const unsigned char my_net_contents[];", "enum { my_net_batch = 4, my_net_last_batch = 2 };"] {
        assert!(header.contains(line), "{header}");
    }
    for name in ["ansatz", "Ansatz.o"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ansatz"));
        let output = command.args(["build", "net.ansatz", "--emit", "obj", "-o", name]).current_dir(folder).output();
        let words = String::from_utf8_lossy(&output.expect("it runs").stderr).into_owned();
        assert!(words.contains("the header of the interface"), "{words}");
    }
    assert!(header.contains("my_net_field_label = 1, /* int32_t [], from 0 to 2 */"), "{header}");
}
