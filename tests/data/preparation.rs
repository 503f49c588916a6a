//! Preparation: what is measured on the training split and applied everywhere.

use super::{all, expect_refusal, floats, folder, integers, opened, repository};

#[test]
fn normalisation_is_measured_on_the_training_split_only() {
    let folder = folder(&[("t.csv", b"a,b\n1,10\n3,10\n100,99\n")]);
    let body = "source = csv(\"t.csv\")\n x: f32[2]\n split = in_order(test = 1)\n prepare.x = normalize(per_feature)";
    let data = opened(folder.path(), body);
    // Means 2 and 10, deviations 1 and 0; a feature that never varies is only centred.
    assert_eq!(floats(&all(&data.train), 0), [-1.0, 0.0, 1.0, 0.0]);
    assert_eq!(floats(&all(&data.test), 0), [98.0, 89.0]);
}

#[test]
fn missing_values_are_filled_from_the_training_split() {
    let folder = folder(&[("t.csv", b"a,b\n1,?\n2,5\n9,7\n,NA\n")]);
    let body = |fill: &str| {
        format!(
            "source = csv(\"t.csv\", missing = [\"?\", \"NA\"])\n x: f32[2]\n split = in_order(test = 1)\n prepare.x = fill({fill})"
        )
    };
    let test = |fill| floats(&all(&opened(folder.path(), &body(fill)).test), 0).to_vec();
    assert_eq!(test("mean"), [4.0, 6.0]);
    assert_eq!(test("median"), [2.0, 6.0]);
    assert_eq!(test("-1"), [-1.0, -1.0]);
    assert_eq!(floats(&all(&opened(folder.path(), &body("mean")).train), 0)[..2], [1.0, 6.0]);
}

#[test]
fn incomplete_records_are_dropped_before_the_split() {
    let folder = folder(&[("t.csv", b"a,y\n1,0\n,1\n3,\n4,1\n5,0\n")]);
    let body = "source = csv(\"t.csv\")\n a: f32\n y: class[2]\n prepare = drop_missing\n split = in_order(test = 1)";
    let data = opened(folder.path(), body);
    assert_eq!(floats(&all(&data.train), 0), [1.0, 4.0]);
    assert_eq!(integers(&all(&data.train), 1), [0, 1]);
    assert_eq!(floats(&all(&data.test), 0), [5.0]);
}

#[test]
fn outliers_are_clipped_by_bounds_and_by_deviations() {
    let folder = folder(&[("t.csv", b"a\n-1\n1\n-1\n1\n50\n")]);
    let body =
        |stage: &str| format!("source = csv(\"t.csv\")\n a: f32\n split = in_order(test = 1)\n prepare.a = {stage}");
    let test = |stage: &str| floats(&all(&opened(folder.path(), &body(stage)).test), 0)[0];
    assert_eq!(test("clip(-2, 7)"), 7.0);
    // Training mean 0, deviation 1.
    assert_eq!(test("clip(std = 3)"), 3.0);
    assert_eq!(test("clip(std = 3) -> shift(1) -> scale(2)"), 8.0);
    assert_eq!(test("min_max(per_feature)"), 25.5);
    assert!((test("shift(1) -> log1p") - 52f32.ln()).abs() < 1e-6);
    expect_refusal(folder.path(), &body("log1p"), &["t.csv: the preparation of `a` makes -inf of record 1"]);
}

#[test]
fn bytes_through_the_table_equal_floats_through_the_stages() {
    let sizes = "[3, 8, 10]";
    let body = |element: &str, group: &str| {
        format!(
            "source = random_images(samples = 20)\n image: {element}{sizes}\n label: class[4]\n split = in_order(test = 5)
            prepare.image = scale(1 / 255) -> normalize({group}) -> clip(-1.5, 1.5)"
        )
    };
    for group in ["whole", "per_channel", "per_feature"] {
        let bytes = opened(&repository(), &body("u8", group));
        let means: f32 = floats(&all(&bytes.train), 0).iter().sum::<f32>() / (15.0 * 240.0);
        // Clipping is symmetric about the mean that was taken out, up to the skew of the sample.
        assert!(means.abs() < 0.05, "{group}: {means}");
        let folder = folder(&[("x.npy", &raw(&body("u8", group)))]);
        let float = format!(
            "source = npy(image = \"x.npy\")\n image: f32{sizes}\n split = in_order(test = 5)
            prepare.image = scale(1 / 255) -> normalize({group}) -> clip(-1.5, 1.5)"
        );
        let floats_data = opened(folder.path(), &float);
        let (from_bytes, from_floats) = (all(&bytes.test), all(&floats_data.test));
        for (left, right) in floats(&from_bytes, 0).iter().zip(floats(&from_floats, 0)) {
            // The sums behind mean and deviation round differently: one unit in the last place of each.
            assert!((left - right).abs() < 1e-6, "{group}: {left} {right}");
        }
    }
}

/// The unprepared pictures of an item as a NumPy file of floats.
fn raw(body: &str) -> Vec<u8> {
    let plain: String = body.lines().filter(|line| !line.contains("prepare")).collect::<Vec<_>>().join("\n");
    let data = opened(&repository(), &plain.replace("split = in_order(test = 5)", ""));
    let bytes: Vec<u8> = floats(&all(&data.train), 0).iter().flat_map(|x| x.to_le_bytes()).collect();
    super::sources::npy("<f4", "(20, 3, 8, 10)", &bytes)
}

#[test]
fn given_statistics_apply_per_channel() {
    let body = "source = random_images(samples = 2)\n image: u8[2, 1, 3]\n label: class[2]";
    let plain = floats(&all(&opened(&repository(), body).train), 0).to_vec();
    let prepared = format!("{body}\n prepare.image = normalize(mean = [100, 200], std = [2, 4])");
    let expected: Vec<f32> = plain
        .iter()
        .enumerate()
        .map(|(place, value)| if place % 6 < 3 { (value - 100.0) * 0.5 } else { (value - 200.0) * 0.25 })
        .collect();
    assert_eq!(floats(&all(&opened(&repository(), &prepared).train), 0), expected);
}

#[test]
fn labels_become_one_hot_or_floats() {
    let body = "source = random_images(samples = 6)\n image: u8[1, 2, 2]\n label: class[3]";
    let labels = integers(&all(&opened(&repository(), body).train), 1).to_vec();
    let data = opened(&repository(), &format!("{body}\n prepare.label = one_hot"));
    assert_eq!((data.fields[1].sizes.as_slice(), data.fields[1].classes), ([3].as_slice(), None));
    for (row, label) in floats(&all(&data.train), 1).chunks(3).zip(&labels) {
        assert_eq!(row.iter().position(|value| *value == 1.0), Some(*label as usize));
        assert_eq!(row.iter().sum::<f32>(), 1.0);
    }
    let data = opened(&repository(), &format!("{body}\n prepare.label = cast(f32) -> scale(10)"));
    let expected: Vec<f32> = labels.iter().map(|label| *label as f32 * 10.0).collect();
    assert_eq!(floats(&all(&data.train), 1), expected);
    let data = opened(&repository(), &format!("{body}\n prepare.image = scale(2) -> cast(i32)"));
    assert!(integers(&all(&data.train), 0).iter().all(|value| value % 2 == 0));
}
