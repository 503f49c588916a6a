//! Steps that are not finite: what is told of them, and what `not_finite` makes of them.

use ansatz::runtime::checkpoint;
use ansatz::runtime::data::{Batch, Plan, Rows};
use ansatz::runtime::train::{Divergence, Event, LoopError};
use ansatz::runtime::trainer::{Snapshot, Trainer};

use super::{How, Prepared};

/// The number that only the poisoned record holds, in steps of a sixteenth as all are.
const POISON: f32 = -7.25;

/// 24 records in batches of 4: six steps a pass, eighteen in all, of which one a pass has the poisoned record.
fn text(hidden: &str, settings: &str) -> String {
    format!(
        "model Net {{\n  input x: [N, 4]\n  z = x -> fc1: Linear(4) -> Dropout(0.2)\n  h[n, k] = z[n, k] + {hidden}\n  return h -> fc2: \
         Linear(3)\n}}\n\ndata rows {{\n  source = csv(\"rows.csv\")\n  x: f32[4]\n  label: class[3]\n}}\n\ntrain Net on rows {{\n  loss = \
         cross_entropy(label)\n  optimizer = adamw(lr = 1e-2)\n  batch = 4\n  length = 3 epochs\n  metrics = accuracy, recall(macro)\n\
         {settings}\n}}\n"
    )
}

/// A table of which these records, counted from 1, hold the poison.
fn table(poisoned: &[usize]) -> String {
    let row = |record: usize| {
        let mut x: Vec<f32> = (0..4).map(|column| ((record * 7 + column * 5) % 13) as f32 / 16.0).collect();
        if poisoned.contains(&record) {
            x[2] = POISON;
        }
        format!("{},{},{},{},{}\n", x[0], x[1], x[2], x[3], record % 3)
    };
    format!("a,b,c,d,label\n{}", (1..=24).map(row).collect::<String>())
}

fn prepared(hidden: &str, settings: &str, poisoned: &[usize]) -> Prepared {
    Prepared::new(&text(hidden, settings), &[("rows.csv", table(poisoned).as_bytes())])
}

/// Whether a batch has a poisoned record.
fn is_poisoned(batch: &Batch) -> bool {
    batch.fields.iter().any(|rows| matches!(rows, Rows::F32(values) if values.contains(&POISON)))
}

/// The batches of a run in order, as many as are asked for.
fn batches(prepared: &Prepared) -> impl Fn(u64) -> Batch {
    let split = prepared.dataset.train.clone();
    move |number| split.batch_at(&Plan::training(4, 0), number)
}

/// All tensors as the newest checkpoint of a run holds them.
fn saved(prepared: &Prepared, run: &str) -> Vec<Vec<u8>> {
    let (tensors, _) = checkpoint::load(&prepared.at(&format!("{run}/last.safetensors"))).expect("a checkpoint");
    tensors.into_values().map(|tensor| tensor.bytes.into_owned()).collect()
}

fn tensors(trainer: &Trainer) -> Vec<Vec<u8>> {
    trainer.tensors(false).expect("a CPU").into_values().map(|tensor| tensor.bytes.into_owned()).collect()
}

fn diverged(prepared: &Prepared, run: &str, how: How) -> Divergence {
    match prepared.run(run, how, &mut |_| {}).ending {
        Err(LoopError::Diverged(divergence)) => *divergence,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_poisoned_record_is_named_with_its_step_its_operation_and_its_line() {
    let cases = [
        ("log(x[n, k] + 1)", "a logarithm of zero or of a negative number at"),
        ("sqrt(x[n, k])", "a root of a negative number at"),
        ("0 * x[n, k] / (x[n, k] + 7.25)", "a division by zero"),
        ("exp(-16 * x[n, k])", "an exponential of more than 88.7 at"),
        ("(x[n, k] / 8) ^ 0.3", "a power at"),
    ];
    for (hidden, operation) in cases {
        let prepared = prepared(hidden, "", &[18]);
        let batch = batches(&prepared);
        let step = (0..6).find(|step| is_poisoned(&batch(*step))).expect("in the first pass") + 1;
        let told = diverged(&prepared, "one", How::default());
        assert_eq!((told.step, told.what.as_str()), (step, "the loss"), "{hidden}");
        let origin = told.origin.as_ref().unwrap_or_else(|| panic!("{hidden}: no origin"));
        assert!(origin.operation.contains(operation) && origin.operation.contains("net.ansatz:4:"), "{origin:?}");
        let records = told.records.as_deref().unwrap_or_else(|| panic!("{hidden}: no record"));
        assert!(records.contains("rows.csv: record 18 (train)"), "{records}");
        assert_eq!(diverged(&prepared, "three", How { threads: 3, ..How::default() }), told, "{hidden}");
    }
}

#[test]
fn two_poisoned_records_of_a_batch_are_named_and_weights_that_grow_blame_none() {
    let prepared_ = prepared("log(x[n, k] + 1)", "", &[]);
    // Two records of the third batch.
    let batch = batches(&prepared_)(2);
    let sources: Vec<String> =
        (0..2).map(|place| prepared_.dataset.source_of(&Plan::training(4, 0), &batch, place)).collect();
    let numbers =
        sources.iter().map(|source| source.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number"));
    let prepared_ = prepared("log(x[n, k] + 1)", "", &numbers.collect::<Vec<usize>>());
    let told = diverged(&prepared_, "two", How::default());
    let records = told.records.expect("both");
    assert_eq!(told.step, 3);
    let named = |source: &String| source.rsplit('/').next().is_some_and(|name| records.contains(name));
    assert!(sources.iter().all(named) && records.contains(" and "), "{records}");
    let grown =
        prepared("x[n, k]", "  clip = 1e30", &[]).with("optimizer = adamw(lr = 1e-2)", "optimizer = sgd(lr = 1e38)");
    let told = diverged(&grown, "grown", How::default());
    assert!(told.records.is_none() && told.origin.expect("an origin").samples.is_empty());
}

/// Files and lines of a run, all that must not depend on threads and stops.
fn results(prepared: &Prepared, run: &str) -> (Vec<Vec<u8>>, [Vec<super::Line>; 2]) {
    let files = ["last", "weights"].map(|file| prepared.bytes(&format!("{run}/{file}.safetensors")));
    let lines = [format!("{run}.jsonl"), format!("{run}/metrics.jsonl")];
    (files.into(), lines.map(|file| prepared.lines(&file)))
}

/// The same results at each number of threads, and stopped after any step.
fn does_not_depend_on_threads_and_stops(prepared: &Prepared) {
    prepared.finish("whole", How::default());
    let whole = results(prepared, "whole");
    for threads in [2, 3, 7] {
        let run = format!("at{threads}");
        prepared.finish(&run, How { threads, stop_after: None });
        assert!(results(prepared, &run) == whole, "other results at {threads} threads");
    }
    for stop in 0..18 {
        let run = format!("stop{stop}");
        prepared.finish(&run, How { stop_after: Some(stop), threads: 1 + stop as usize % 3 });
        prepared.finish(&run, How::default());
        assert!(results(prepared, &run) == whole, "other results when stopped after step {stop}");
    }
}

#[test]
fn a_skipped_step_leaves_the_state_before_it_and_uses_its_batch_up() {
    let prepared = prepared("log(x[n, k] + 1)", "  not_finite = skip\n  save = 4 steps", &[18]);
    let mut troubles = Vec::new();
    let told = prepared.run("run", How::default(), &mut |event| {
        if let Event::Trouble(words) = event {
            troubles.push(words.clone());
        }
    });
    assert!(told.ending.is_ok() && told.steps == 18, "{:?}", told.ending);
    let (mut trainer, batch) = (prepared.trainer(1), batches(&prepared));
    let mut skipped = Vec::new();
    for number in 0..18 {
        if number % 6 == 0 {
            trainer.reset_metrics().expect("a CPU");
        }
        if is_poisoned(&batch(number)) {
            trainer.position_mut().step += 1;
            skipped.push(number + 1);
        } else {
            trainer.step(&batch(number)).expect("a CPU");
        }
    }
    assert!(skipped.len() == 3 && saved(&prepared, "run") == tensors(&trainer), "other weights than without the steps");
    // Each is told, the first with all that is known of it.
    assert_eq!(troubles.len(), 3, "{troubles:?}");
    for (words, step) in troubles.iter().zip(&skipped) {
        assert!(words.starts_with(&format!("step {step} is skipped: the loss is not finite")), "{words}");
    }
    assert!(troubles[0].contains("a logarithm") && troubles[0].contains("rows.csv: record 18"), "{}", troubles[0]);
    let marked = |line: &super::Line| (line["not_finite"] == true).then(|| line["step"].as_u64());
    let lines = prepared.lines("run.jsonl");
    let marked: Vec<u64> =
        lines.iter().filter(|line| line.contains_key("not_finite")).filter_map(marked).flatten().collect();
    assert_eq!((lines.len(), marked), (18, skipped));
    for epoch in prepared.lines("run/metrics.jsonl") {
        assert!(epoch["skipped"] == 1 && epoch["train.samples"] == 20 && epoch["train.loss"].is_number(), "{epoch:?}");
    }
}

#[test]
fn skipping_does_not_depend_on_threads_and_stops() {
    let settings = "  not_finite = skip\n  save = 4 steps";
    does_not_depend_on_threads_and_stops(&prepared("log(x[n, k] + 1)", settings, &[18]));
}

#[test]
fn going_back_does_not_depend_on_threads_and_stops() {
    let settings = "  not_finite = roll_back(9)\n  save = 4 steps\n  keep = best(train.loss)";
    does_not_depend_on_threads_and_stops(&prepared("log(x[n, k] + 1)", settings, &[18]));
}

#[test]
fn a_run_goes_back_to_its_checkpoint_and_on_behind_the_batch() {
    let prepared = prepared("log(x[n, k] + 1)", "  not_finite = roll_back(9)\n  save = 4 steps", &[18]);
    let mut troubles = Vec::new();
    let told = prepared.run("run", How::default(), &mut |event| {
        if let Event::Trouble(words) = event {
            troubles.push(words.clone());
        }
    });
    assert!(told.ending.is_ok() && told.steps == 18, "{:?}", told.ending);
    let (mut trainer, batch) = (prepared.trainer(1), batches(&prepared));
    let (mut place, mut passed, mut returns) = (Snapshot::default(), 0, Vec::new());
    trainer.take(&mut place).expect("a CPU");
    while trainer.position().step < 18 {
        let step = trainer.position().step;
        if step % 6 == 0 {
            trainer.reset_metrics().expect("a CPU");
        }
        if is_poisoned(&batch(step + passed)) {
            let number = step + passed;
            trainer.put_back(&place).expect("a CPU");
            returns.push((step + 1, trainer.position().step));
            passed = number + 1 - trainer.position().step;
            continue;
        }
        trainer.step(&batch(step + passed)).expect("a CPU");
        if (step + 1) % 4 == 0 {
            trainer.take(&mut place).expect("a CPU");
        }
    }
    assert!(returns.len() > 1 && saved(&prepared, "run") == tensors(&trainer), "other weights: {returns:?}");
    assert_eq!(troubles.len(), returns.len(), "{troubles:?}");
    for (words, (step, back)) in troubles.iter().zip(&returns) {
        let told = words.starts_with(&format!("step {step}: the loss is not finite"));
        assert!(told && words.contains(&format!("back to step {back},")), "{words}");
    }
    assert!(troubles[0].contains("a logarithm") && troubles[0].contains("rows.csv: record 18"), "{}", troubles[0]);
    let steps: Vec<Option<u64>> = prepared.lines("run.jsonl").iter().map(|line| line["step"].as_u64()).collect();
    assert_eq!(steps, (1..=18).map(Some).collect::<Vec<_>>(), "each step once");
    assert!(prepared.lines("run.jsonl").iter().all(|line| line["loss"].is_number()));
}

#[test]
fn a_run_that_only_skips_or_only_goes_back_ends() {
    let all: Vec<usize> = (1..=24).collect();
    for (settings, step, words) in [
        ("  not_finite = skip(2)", 3, "the 2 steps before it were skipped"),
        ("  not_finite = roll_back(2)", 1, "the run went back 2 times before"),
    ] {
        let prepared = prepared("log(x[n, k] + 1)", settings, &all);
        let told = diverged(&prepared, "run", How::default());
        assert_eq!(told.step, step, "{settings}");
        assert!(told.tried.as_deref().is_some_and(|tried| tried.contains(words)), "{:?}", told.tried);
        assert!(told.origin.is_some_and(|origin| origin.operation.contains("a logarithm")));
    }
    // A pass of which nothing was computed has no figure, and no weights are lost.
    let prepared = prepared("log(x[n, k] + 1)", "  not_finite = skip(100)", &all);
    prepared.finish("run", How::default());
    assert!(
        prepared.lines("run/metrics.jsonl").iter().all(|epoch| epoch["train.loss"].is_null() && epoch["skipped"] == 6)
    );
    assert!(saved(&prepared, "run") == tensors(&prepared.trainer(1)));
}
