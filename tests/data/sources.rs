//! What each source reads.

use std::io::Write;

use super::{all, expect_refusal, floats, folder, integers, open, opened, repository, spec};
use ansatz::graph::DType;
use ansatz::runtime::data;

/// An IDX file of bytes.
pub fn idx(sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, sizes.len() as u8];
    sizes.iter().for_each(|size| file.extend(size.to_be_bytes()));
    file.extend(bytes);
    file
}

/// A PNG file of red, green and blue.
pub fn png(width: u32, height: u32, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().and_then(|mut head| head.write_image_data(pixels)).expect("encoded");
    bytes
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

/// A NumPy array of version 1.
pub fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

#[test]
fn csv_takes_columns_by_name_by_choice_and_in_order() {
    let table = b"id,a,b,c,kind\n7,1,2,3,1\n8,4,5.5,-6e1,0\n";
    let folder = folder(&[("t.csv", table)]);
    let data = opened(
        folder.path(),
        "source = csv(\"t.csv\")\n kind: class[2]\n x: f32[2] = columns(\"b\", \"c\")\n last: f32 = column(1)\n id: i32",
    );
    assert_eq!(data.fields[3].dtype, DType::I32);
    let batch = all(&data.train);
    assert_eq!(integers(&batch, 0), [1, 0]);
    assert_eq!(floats(&batch, 1), [2.0, 3.0, 5.5, -60.0]);
    assert_eq!(floats(&batch, 2), [1.0, 4.0]);
    assert_eq!(integers(&batch, 3), [7, 8]);
    let data = opened(folder.path(), "source = csv(\"t.csv\")\n x: f32[2, 2]\n kind: class[2]");
    assert_eq!(floats(&all(&data.train), 0), [7.0, 1.0, 2.0, 3.0, 8.0, 4.0, 5.5, -60.0]);
    let data = opened(folder.path(), "source = csv(\"t.csv\")\n x: f32[2] = columns([\"c\", \"a\"])\n kind: class[2]");
    assert_eq!(floats(&all(&data.train), 0), [3.0, 1.0, -60.0, 4.0]);
}

#[test]
fn csv_without_header_with_another_delimiter_quotes_and_gzip() {
    let table = gzip(b"\"1\";2; red\r\n3;4;blue\r\n5;6;\"red\"\r\n");
    let folder = folder(&[("t.csv.gz", &table)]);
    let body = "source = csv(\"t.csv.gz\", header = false, delimiter = \";\")\n x: f32[2]\n colour: class[2]";
    let batch = all(&opened(folder.path(), body).train);
    assert_eq!(floats(&batch, 0), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    // Classes in words are numbered in sorted order.
    assert_eq!(integers(&batch, 1), [1, 0, 1]);
}

#[test]
fn words_for_classes_mean_the_same_in_training_and_test() {
    let folder = folder(&[("a.csv", b"x,y\n1,dog\n2,cat\n"), ("b.csv", b"x,y\n3,emu\n4,dog\n")]);
    let body = "source = csv(\"a.csv\")\n test = csv(\"b.csv\")\n x: f32\n y: class[3]";
    let data = opened(folder.path(), body);
    assert_eq!(integers(&all(&data.train), 1), [1, 0]);
    assert_eq!(integers(&all(&data.test), 1), [2, 1]);
    expect_refusal(folder.path(), &body.replace("[3]", "[2]"), &["3 different words", "class[2]"]);
}

#[test]
fn idx_reads_plain_and_gzipped_files_alike() {
    let images = idx(&[3, 2, 2], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255]);
    let labels = idx(&[3], &[2, 0, 1]);
    let folder = folder(&[("i", &images), ("l", &labels), ("i.gz", &gzip(&images)), ("l.gz", &gzip(&labels))]);
    let body = "source = idx(images = \"i\", labels = \"l\")\n label: class[3]\n image: u8[1, 2, 2]";
    let plain = all(&opened(folder.path(), body).train);
    assert_eq!(integers(&plain, 0), [2, 0, 1]);
    assert_eq!(floats(&plain, 1)[8..], [8.0, 9.0, 10.0, 255.0]);
    let zipped = body.replace("\"i\"", "\"i.gz\"").replace("\"l\"", "\"l.gz\"");
    assert_eq!(all(&opened(folder.path(), &zipped).train), plain);
}

#[test]
fn npy_reads_every_number_type() {
    let cases: [(&str, Vec<u8>); 8] = [
        ("<f4", [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect()),
        (">f8", [1.5f64, -2.0].iter().flat_map(|x| x.to_be_bytes()).collect()),
        ("<f2", [0x3e00u16, 0xc000].iter().flat_map(|x| x.to_le_bytes()).collect()),
        ("<i8", [7i64, -2].iter().flat_map(|x| x.to_le_bytes()).collect()),
        (">i2", [7i16, -2].iter().flat_map(|x| x.to_be_bytes()).collect()),
        ("|i1", vec![7, 254]),
        ("|u1", vec![7, 254]),
        ("<u4", [7u32, 254].iter().flat_map(|x| x.to_le_bytes()).collect()),
    ];
    for (descr, bytes) in cases {
        let folder = folder(&[("x.npy", &npy(descr, "(2, 1)", &bytes))]);
        let data = opened(folder.path(), "source = npy(x = \"x.npy\")\n x: f32");
        let first = if descr.contains('f') { 1.5 } else { 7.0 };
        let second = if descr.contains('u') { 254.0 } else { -2.0 };
        assert_eq!(floats(&all(&data.train), 0), [first, second], "{descr}");
    }
}

#[test]
fn npz_takes_named_arrays_and_refuses_missing_ones() {
    let body = "source = npz(\"models/data/books.npz\", words = \"words_test\", label = \"label_test\")
        words: u8[1000]\n label: class[10]";
    let data = opened(&repository(), body);
    assert_eq!(data.train.len(), 728);
    let batch = all(&data.train);
    // A window of 8 verses holds some two hundred words, and most of them are among the thousand most frequent.
    let words = floats(&batch, 0).iter().sum::<f32>() / 728.0;
    assert!((100.0..400.0).contains(&words), "{words}");
    let wrong = body.replace("words_test", "word_test");
    expect_refusal(&repository(), &wrong, &["holds no array \"word_test\"", "did you mean \"words_test\"?"]);
}

#[test]
fn npz_reads_what_numpy_writes_plain_and_compressed() {
    // `savez` and `savez_compressed` of NumPy 2.4 wrote these.
    for name in ["arrays", "arrays_compressed"] {
        let body =
            format!("source = npz(\"tests/data/{name}.npz\")\n image: u8[2, 3]\n label: class[3]\n row: f32[100]");
        let batch = all(&opened(&repository(), &body).train);
        assert_eq!(floats(&batch, 0), (0..24u8).map(f32::from).collect::<Vec<_>>(), "{name}");
        assert_eq!(integers(&batch, 1), [0, 1, 2, 0], "{name}");
        let ends = (floats(&batch, 2)[0], floats(&batch, 2)[399]);
        assert_eq!(ends, (-1.0, 1.0), "{name}");
    }
}

#[test]
fn cifar_folder_gives_training_and_test_records() {
    let body = "source = cifar_binary(\"tests/data/cifar-like\")\n image: u8[3, 32, 32]\n label: class[10]";
    let data = opened(&repository(), body);
    assert_eq!((data.train.len(), data.valid.len(), data.test.len()), (40, 0, 20));
    let bytes = std::fs::read(repository().join("tests/data/cifar-like/data_batch_1.bin")).expect("shipped");
    let batch = all(&data.train);
    assert_eq!(integers(&batch, 1)[..12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
    let second: Vec<f32> = bytes[3074..6146].iter().map(|byte| f32::from(*byte)).collect();
    assert_eq!(floats(&batch, 0)[3072..6144], second);
}

#[test]
fn cifar_100_has_two_labels_and_says_so_when_they_are_forgotten() {
    let record = |coarse: u8, fine: u8| [vec![coarse, fine], vec![9; 3072]].concat();
    let file = [record(1, 55), record(19, 99)].concat();
    let folder = folder(&[("train.bin", &file)]);
    let body = "source = cifar_binary(\"train.bin\", labels = fine)\n image: u8[3, 32, 32]\n label: class[100]";
    assert_eq!(integers(&all(&opened(folder.path(), body).train), 1), [55, 99]);
    let coarse = body.replace("fine", "coarse").replace("100", "20");
    assert_eq!(integers(&all(&opened(folder.path(), &coarse).train), 1), [1, 19]);
    expect_refusal(
        folder.path(),
        &body.replace(", labels = fine", ""),
        &["train.bin: record 3", "say `labels = fine`"],
    );
}

#[test]
fn image_folder_numbers_classes_in_sorted_order_and_resizes() {
    let picture = |red: u8, side: usize| png(side as u32, side as u32, &[red, 20, 30].repeat(side * side));
    let files = [("p/b/1.png", picture(200, 4)), ("p/a/2.png", picture(10, 4)), ("p/a/1.png", picture(90, 8))];
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let folder = folder(&files);
    let body = "source = image_folder(\"p\", size = [4, 4])\n image: u8[3, 4, 4]\n label: class[2]";
    let batch = all(&opened(folder.path(), body).train);
    assert_eq!(integers(&batch, 1), [0, 0, 1]);
    let reds: Vec<f32> = floats(&batch, 0).chunks(48).map(|picture| picture[5]).collect();
    assert_eq!(reds, [90.0, 10.0, 200.0]);
    assert_eq!(floats(&batch, 0)[16..32], [20.0; 16]);
    expect_refusal(
        folder.path(),
        &body.replace(", size = [4, 4]", ""),
        &["p/a/1.png: is 8 × 8, but 4 × 4 is declared"],
    );
}

/// Checksums of planes that the `image` crate, version 0.25.10, decoded, converted and resized.
#[test]
fn pictures_of_all_kinds_are_decoded_made_grey_or_coloured_and_resized() {
    // Grey, coloured, grey as 8 × 5, coloured as 20 × 31.
    let pictures = [
        ("colour.jpg", [17, 23], [0x1cc4f5a3, 0xc7bf2f22, 0x086fd0e8, 0x20daf2b2]),
        ("grey.jpg", [12, 9], [0x51fa1eee, 0x84a706a4, 0xe1f891a4, 0xc6a1afa7]),
        ("deep.png", [6, 7], [0xda21404e, 0x657de784, 0x64e14cf6, 0xdd5e5e35]),
        ("palette.png", [5, 8], [0x3d1f0eb3, 0x11d39c38, 0x5faf99cb, 0xe1444fe7]),
        ("bits.png", [3, 10], [0xbf322571, 0xe1e7a082, 0xe08196ec, 0x04e89274]),
    ];
    for (name, own, checksums) in pictures {
        let bytes = std::fs::read(repository().join("tests/data/pictures").join(name)).expect("shipped");
        let folder = folder(&[(&format!("p/a/{name}"), &bytes)]);
        let sizes = [(1, own), (3, own), (1, [8, 5]), (3, [20, 31])];
        for ((channels, [height, width]), checksum) in sizes.into_iter().zip(checksums) {
            let body = format!(
                "source = image_folder(\"p\", size = [{height}, {width}])\n image: u8[{channels}, {height}, {width}]"
            );
            let planes: Vec<u8> =
                floats(&all(&opened(folder.path(), &body).train), 0).iter().map(|value| *value as u8).collect();
            let mut crc = flate2::Crc::new();
            crc.update(&planes);
            assert_eq!(crc.sum(), checksum, "{name}, {channels} × {height} × {width}: {planes:?}");
        }
    }
}

#[test]
fn synthetic_samples_depend_on_seed_and_split_only() {
    let here = repository();
    let body = "source = spirals(classes = 3, points = 10, noise = 0.1)\n test = spirals(classes = 3, points = 10, noise = 0.1)
        point: f32[2]\n label: class[3]";
    let data = opened(&here, body);
    let (train, test) = (all(&data.train), all(&data.test));
    assert_eq!(all(&opened(&here, body).train), train);
    assert_ne!(floats(&train, 0), floats(&test, 0));
    assert_ne!(all(&data::open(&spec::spec(&here, body), 2).expect("opens").train), train);
    for seed in [1, 2] {
        let fixed = body.replace("noise = 0.1)\n test", "noise = 0.1, seed = 5)\n test");
        let other = data::open(&spec::spec(&here, &fixed), seed).expect("opens");
        assert_eq!(all(&other.train), all(&data::open(&spec::spec(&here, &fixed), 9).expect("opens").train));
    }
    assert_eq!(integers(&train, 1).iter().filter(|label| **label == 2).count(), 10);
}

#[test]
fn regression_targets_are_the_same_linear_function_in_both_splits() {
    let body =
        "source = regression(samples = 50, noise = 0)\n test = regression(samples = 4, noise = 0)\n x: f32[2]\n y: f32";
    let data = opened(&repository(), body);
    let (train, test) = (all(&data.train), all(&data.test));
    // y = w·x + b is found from three training samples by Cramer's rule and must hold everywhere.
    let row = |batch: &data::Batch, i: usize| {
        let (x, y) = (floats(batch, 0), floats(batch, 1));
        (f64::from(x[2 * i]), f64::from(x[2 * i + 1]), f64::from(y[i]))
    };
    let ((a0, b0, y0), (a1, b1, y1), (a2, b2, y2)) = (row(&train, 0), row(&train, 1), row(&train, 2));
    let determinant = (a1 - a0) * (b2 - b0) - (a2 - a0) * (b1 - b0);
    let w0 = ((y1 - y0) * (b2 - b0) - (y2 - y0) * (b1 - b0)) / determinant;
    let w1 = ((a1 - a0) * (y2 - y0) - (a2 - a0) * (y1 - y0)) / determinant;
    for (batch, samples) in [(&train, 50), (&test, 4)] {
        for sample in 0..samples {
            let (a, b, y) = row(batch, sample);
            assert!((y0 + w0 * (a - a0) + w1 * (b - b0) - y).abs() < 1e-4, "sample {sample}");
        }
    }
}

#[test]
fn sources_with_labels_serve_items_without_them() {
    let body = "source = cifar_binary(\"tests/data/cifar-like\")\n image: u8[3, 32, 32]";
    let data = opened(&repository(), body);
    assert_eq!((data.fields.len(), data.train.len(), data.test.len()), (1, 40, 20));
    let folder = folder(&[("i", &idx(&[2, 3], &[1, 2, 3, 4, 5, 6]))]);
    let batch = all(&opened(folder.path(), "source = idx(images = \"i\")\n x: u8[3]").train);
    assert_eq!(floats(&batch, 0), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    expect_refusal(folder.path(), "source = idx(images = \"i\", labels = \"l\")\n x: u8[3]", &["no argument `labels`"]);
    assert_eq!(opened(&repository(), "source = spirals(classes = 2, points = 5)\n x: f32[2]").train.len(), 10);
}

#[test]
fn random_images_have_the_declared_size() {
    let data = opened(&repository(), "source = random_images(samples = 5)\n image: u8[3, 4, 6]\n label: class[7]");
    assert_eq!((data.train.len(), data.fields[0].elements()), (5, 72));
    assert!(integers(&all(&data.train), 1).iter().all(|label| (0..7).contains(label)));
}

#[test]
fn shipped_models_open_their_data() {
    let counts = [
        ("linear_regression", (2000, 0, 500)),
        ("spirals", (1500, 0, 600)),
        ("digits", (1258, 180, 359)),
        ("mnist_cnn", (8000, 1000, 1000)),
        ("text_mlp", (2912, 0, 728)),
    ];
    for (name, (train, valid, test)) in counts {
        let spec = spec::spec_of_file(&repository().join(format!("models/{name}.ansatz")));
        let data = data::open(&spec, 0).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((data.train.len(), data.valid.len(), data.test.len()), (train, valid, test), "{name}");
        assert_eq!(data::fields(&spec).expect("checked"), data.fields, "{name}");
    }
    let spec = spec::spec_of_file(&repository().join("models/cifar_cnn.ansatz"));
    assert_eq!(data::fields(&spec).expect("checked without a file")[0].sizes, [3, 32, 32]);
}

#[test]
fn splits_by_fraction_are_named_in_the_description() {
    let data = opened(
        &repository(),
        "source = csv(\"models/data/digits.csv\")\n pixels: u8[64]\n label: class[10]\n split = random(valid = 100, test = 0.2, seed = 1)",
    );
    assert_eq!(data.describe(), "d: 1338 train, 100 valid, 359 test; pixels f32[64], label class[10]");
    assert!(
        open(&repository(), "source = csv(\"models/data/digits.csv\")\n pixels: u8[64]\n label: class[10]").is_ok()
    );
}
