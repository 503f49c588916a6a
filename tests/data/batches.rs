//! Batches: order, resumption, augmentation, the thread that works ahead.

use super::{all, floats, folder, integers, opened, repository, spec};
use ansatz::runtime::data::{self, Batch, Dataset, Order, Plan};

const AUGMENTED: &str = "source = random_images(samples = 23)\n image: u8[3, 12, 10]\n label: class[5]
    prepare.image = scale(1 / 255) -> normalize(per_channel)
    augment.image = random_crop(8, pad = 2) -> random_flip(horizontal) -> rotate(-20 deg, 20 deg) -> zoom(0.8, 1.2)
                  -> random_flip(vertical) -> erase(p = 0.5, area = 0.3) -> noise(0.1)";

fn numbered(samples: usize) -> Dataset {
    let rows: String = (0..samples).map(|row| format!("{row}\n")).collect();
    let folder = folder(&[("t.csv", format!("n\n{rows}").as_bytes())]);
    opened(folder.path(), "source = csv(\"t.csv\")\n n: i32")
}

#[test]
fn every_epoch_shows_every_sample_once_and_the_last_batch_is_short() {
    let data = numbered(10);
    let plan = Plan::training(4, 7);
    assert_eq!(data.train.steps_per_epoch(4), 3);
    let batches: Vec<Batch> = data.train.batches(plan, 0, 6).expect("a thread").collect();
    assert_eq!(batches.iter().map(|batch| batch.rows).collect::<Vec<_>>(), [4, 4, 2, 4, 4, 2]);
    assert_eq!(batches.iter().map(|batch| batch.epoch).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
    let epoch = |range: std::ops::Range<usize>| -> Vec<i32> {
        batches[range].iter().flat_map(|batch| integers(batch, 0).to_vec()).collect()
    };
    let (first, second) = (epoch(0..3), epoch(3..6));
    assert_ne!(first, second);
    for mut epoch in [first, second] {
        epoch.sort_unstable();
        assert_eq!(epoch, (0..10).collect::<Vec<_>>());
    }
    let stored: Vec<Batch> = data.train.batches(plan.in_order(), 0, 3).expect("a thread").collect();
    assert_eq!(
        stored.iter().flat_map(|batch| integers(batch, 0).to_vec()).collect::<Vec<_>>(),
        (0..10).collect::<Vec<_>>()
    );
    assert_eq!(plan.in_order().order, Order::Stored);
}

#[test]
fn batches_ahead_equal_batches_on_the_spot_from_any_step() {
    let data = opened(&repository(), AUGMENTED);
    let plan = Plan::training(5, 3);
    for first in [0, 1, 7] {
        let mut ahead = data.train.batches(plan, first, 15).expect("a thread");
        let mut step = first;
        while let Some(batch) = ahead.next() {
            assert_eq!(batch, data.train.batch_at(&plan, step));
            // Recycled buffers must not show through.
            ahead.recycle(batch);
            step += 1;
        }
        assert_eq!(step, 15);
    }
}

#[test]
fn augmentation_depends_on_seed_epoch_and_sample_alone() {
    let data = opened(&repository(), AUGMENTED);
    let rows = |plan: &Plan, step| {
        let batch = data.train.batch_at(plan, step);
        floats(&batch, 0).chunks(3 * 8 * 8).map(<[f32]>::to_vec).collect::<Vec<_>>()
    };
    // The same epoch in batches of another size and order gives the same samples.
    let stored = |batch| Plan::training(batch, 3).in_order();
    let whole = rows(&stored(23), 2);
    assert_eq!(rows(&stored(5), 2 * 5 + 1), whole[5..10]);
    assert_ne!(rows(&stored(23), 3), whole);
    let other = Plan { seed: 4, ..stored(23) };
    assert_ne!(rows(&other, 2), whole);
    let mut shuffled = rows(&Plan::training(23, 3), 2);
    let mut sorted = whole.clone();
    let key = |row: &Vec<f32>| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    shuffled.sort_by_key(key);
    sorted.sort_by_key(key);
    assert_eq!(shuffled, sorted);
}

#[test]
fn evaluation_is_not_augmented_but_cropped_to_the_middle() {
    let data = opened(&repository(), AUGMENTED);
    assert_eq!(data.fields[0].sizes, [3, 8, 8]);
    let plain: String = AUGMENTED.lines().take(4).collect::<Vec<_>>().join("\n");
    let plain = opened(&repository(), &plain);
    let (cropped, plain) = (all(&data.train), all(&plain.train));
    for (cropped, plain) in floats(&cropped, 0).chunks(64).zip(floats(&plain, 0).chunks(120)) {
        for row in 0..8 {
            assert_eq!(cropped[row * 8..][..8], plain[(row + 2) * 10 + 1..][..8]);
        }
    }
}

/// One stage on a picture of 1 … 6 in two rows; every outcome over many epochs.
fn outcomes(stage: &str) -> Vec<Vec<f32>> {
    let folder = folder(&[("t.csv", b"a,b,c,d,e,f\n1,2,3,4,5,6\n")]);
    let data = opened(folder.path(), &format!("source = csv(\"t.csv\")\n x: f32[1, 2, 3]\n augment.x = {stage}"));
    let plan = Plan::training(1, 1);
    let mut seen: Vec<Vec<f32>> = (0..200).map(|step| floats(&data.train.batch_at(&plan, step), 0).to_vec()).collect();
    seen.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    seen.dedup();
    seen
}

#[test]
fn flips_mirror_rows_or_columns() {
    assert_eq!(outcomes("random_flip(horizontal)"), [[1., 2., 3., 4., 5., 6.], [3., 2., 1., 6., 5., 4.]]);
    assert_eq!(outcomes("random_flip(vertical)"), [[1., 2., 3., 4., 5., 6.], [4., 5., 6., 1., 2., 3.]]);
    assert_eq!(outcomes("random_flip(vertical, p = 1)"), [[4., 5., 6., 1., 2., 3.]]);
}

#[test]
fn crops_take_every_window_of_the_padded_picture() {
    let crops = outcomes("random_crop([2, 2])");
    assert_eq!(crops, [[1., 2., 4., 5.], [2., 3., 5., 6.]]);
    // 4 × 5 with the border, windows of 2 × 3: nine places.
    let padded = outcomes("random_crop([2, 3], pad = 1)");
    assert_eq!(padded.len(), 9);
    assert!(padded.contains(&vec![0., 0., 0., 0., 1., 2.]));
    assert!(padded.contains(&vec![5., 6., 0., 0., 0., 0.]));
    assert!(padded.contains(&vec![1., 2., 3., 4., 5., 6.]));
}

#[test]
fn half_a_turn_and_a_zoom_by_one_move_values_exactly() {
    let half_turn = &outcomes("rotate(180 deg, 180 deg)")[0];
    for (got, expected) in half_turn.iter().zip([6., 5., 4., 3., 2., 1.]) {
        // sin π is not 0 in floating point; the interpolation weights inherit about 1e-16 of a pixel.
        assert!((got - expected).abs() < 1e-5, "{half_turn:?}");
    }
    assert_eq!(outcomes("zoom(1, 1)"), [[1., 2., 3., 4., 5., 6.]]);
    // Things at half their size: rows at -0.5 and 1.5 lie half outside, columns at -1 and 3 wholly.
    assert_eq!(outcomes("zoom(0.5, 0.5)"), [[0., 1., 0., 0., 2.5, 0.]]);
}

#[test]
fn erasing_zeros_one_rectangle_in_about_the_given_share_of_samples() {
    let folder = folder(&[("t.csv", format!("{}\n{}\n", header(64), "1,".repeat(63) + "1").as_bytes())]);
    let data =
        opened(folder.path(), "source = csv(\"t.csv\")\n x: f32[1, 8, 8]\n augment.x = erase(p = 0.25, area = 0.5)");
    let plan = Plan::training(1, 1);
    let mut erased = 0;
    for step in 0..400 {
        let batch = data.train.batch_at(&plan, step);
        let zeros: Vec<usize> = (0..64).filter(|place| floats(&batch, 0)[*place] == 0.0).collect();
        if let (Some(first), Some(last)) = (zeros.first(), zeros.last()) {
            erased += 1;
            let (height, width) = (last / 8 - first / 8 + 1, last % 8 - first % 8 + 1);
            assert_eq!(zeros.len(), height * width, "a rectangle");
        }
    }
    // 100 expected, standard deviation 8.7; five of those.
    assert!((57..=143).contains(&erased), "{erased}");
}

fn header(columns: usize) -> String {
    (0..columns).map(|column| format!("c{column}")).collect::<Vec<_>>().join(",")
}

#[test]
fn an_unfinished_loader_stops_its_thread() {
    let data = numbered(1000);
    let mut batches = data.train.batches(Plan::training(1, 0), 0, u64::MAX).expect("a thread");
    assert!(batches.next().is_some());
    drop(batches);
}

#[test]
fn empty_splits_give_no_batches() {
    let data = numbered(4);
    assert_eq!((data.valid.len(), data.valid.steps_per_epoch(2)), (0, 0));
    assert_eq!(data.valid.batches(Plan::evaluation(2), 0, 9).expect("a thread").count(), 0);
}

#[test]
fn splits_by_a_seed_of_their_own_ignore_the_runs_seed() {
    let body = "source = csv(\"models/data/digits.csv\")\n pixels: u8[64]\n label: class[10]\n split = random(test = 0.5, seed = 3)";
    let digits = |body: &str, seed| data::open(&spec::spec(&repository(), body), seed).expect("opens");
    assert_eq!(all(&digits(body, 1).test), all(&digits(body, 2).test));
    let unseeded = body.replace(", seed = 3", "");
    assert_ne!(all(&digits(&unseeded, 1).test), all(&digits(&unseeded, 2).test));
}
