//! Trains the digits of `../digits.ansatz` from Rust: `train TRAINER digits.csv`, with a trainer that was written by
//! `ansatz build examples/digits.ansatz --set data.folder=models/data -o TRAINER`.

// A run's contents are machine code, for which the caller vouches.
#![allow(unsafe_code)]

use std::error::Error;
use std::path::Path;

use ansatz_c::{Kind, Options, Run};

const PIXELS: usize = 64;
const EPOCHS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, trainer, table] = &arguments[..] else { return Err("usage: train TRAINER digits.csv".into()) };
    let (images, labels) = read(&std::fs::read_to_string(table)?)?;
    let contents = std::fs::read(trainer)?;
    let options = Options { steps_per_epoch: (labels.len() / 4 / 32) as u64, ..Options::default() };
    // SAFETY: the file is one that `ansatz build` wrote.
    let mut run = unsafe { Run::create(&contents, &options) }?;
    let (batch, samples) = (run.batch(), labels.len() / 4);
    let steps = samples / batch;
    let part = |first: usize, rows: usize| {
        let (image, label) = (first * PIXELS * 4, first * 4);
        [Some(&images[image..image + rows * PIXELS * 4]), Some(&labels[label..label + rows * 4])]
    };

    for step in 0..EPOCHS * steps {
        let stepped = run.step(batch, &part(step % steps * batch, batch))?;
        println!("{} {}", step + 1, stepped.loss);
    }

    run.evaluate_begin()?;
    for first in (0..samples).step_by(batch) {
        let rows = batch.min(samples - first);
        run.evaluate_add(rows, &part(first, rows))?;
    }
    let figures = run.evaluate_finish()?;
    eprintln!("Rust: loss {:.4}, accuracy {:.4}", figures.loss, figures.metrics[0].values[0]);
    run.save(Path::new("digits.safetensors"), Kind::Weights)?;
    Ok(())
}

/// Pixels, from 0 to 1, and labels of all rows, as the bytes of their elements.
fn read(table: &str) -> Result<(Vec<u8>, Vec<u8>), Box<dyn Error>> {
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for row in table.lines().skip(1) {
        let cells: Vec<&str> = row.split(',').collect();
        for cell in &cells[..PIXELS] {
            images.extend((cell.parse::<f32>()? / 16.0).to_le_bytes());
        }
        labels.extend(cells[PIXELS].parse::<i32>()?.to_le_bytes());
    }
    Ok((images, labels))
}
