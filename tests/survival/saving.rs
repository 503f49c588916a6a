//! Saves beside the training.

use std::process::Command;

use ansatz::runtime::train::{Ending, Event, LoopError};

use super::stops::MODEL;
use super::{How, Prepared};

#[test]
fn a_save_in_flight_stops_no_step_and_its_failure_ends_the_run_with_the_files_name() {
    let prepared =
        Prepared::new(&MODEL.replace("last(2)", "last").replace("save      = 7 steps", "save = 10 steps"), &[]);
    prepared.finish("run", How { stop_after: Some(10), threads: 1 });
    let older = prepared.bytes("run/last.safetensors");
    // Whoever opens a pipe to write waits for a reader, and nothing can sync one: a save that lasts as long as the test
    // wants, and then fails.
    let pipe = prepared.at("run").join(format!(".last.safetensors.{}.tmp", std::process::id()));
    let (mut made, mut steps) = (false, Vec::new());
    let mut reader = None;
    let told = prepared.run("run", How::default(), &mut |event| {
        let Event::Step { step, .. } = event else { return };
        steps.push(*step);
        if !made {
            // Behind the lock, which clears such files.
            assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
            made = true;
        }
        // The save of step 20 is in flight, and would be until somebody reads.
        if *step == 29 {
            let pipe = pipe.clone();
            reader = Some(std::thread::spawn(move || std::fs::read(pipe).expect("read").len()));
        }
    });
    let Err(LoopError::Problem(words)) = told.ending else { panic!("{:?}", told.ending) };
    assert!(words.contains("last.safetensors"), "{words}");
    assert!(steps.starts_with(&(11..=29).collect::<Vec<u64>>()), "the loop waited: {steps:?}");
    assert!(told.steps <= 30, "the save of step 30 waits for that of step 20: {}", told.steps);
    assert!(reader.expect("begun").join().expect("read") > 100, "nothing was written");
    assert!(prepared.bytes("run/last.safetensors") == older && !super::has_rubbish(&prepared.at("run")));
    // What was not saved is done again.
    assert_eq!(prepared.finish("run", How::default()).steps, 50);
    prepared.finish("whole", How::default());
    assert!(prepared.bytes("run/last.safetensors") == prepared.bytes("whole/last.safetensors"));
}

#[test]
fn a_run_that_is_stopped_waits_for_its_save() {
    let prepared = Prepared::new(MODEL, &[]);
    let told = prepared.run("run", How { stop_after: Some(14), threads: 2 }, &mut |_| {});
    assert!(matches!(told.ending, Ok(Ending::Stopped)));
    let lines = prepared.lines("run.jsonl");
    assert_eq!(lines.len(), 14, "the log holds all steps up to the checkpoint");
    assert!(prepared.bytes("run/last.safetensors") == prepared.bytes("run/last-14.safetensors"));
}
