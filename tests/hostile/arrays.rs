//! Arrays and archives of them: npy, npz, IDX, CIFAR.

use flate2::Compression;
use rawzip::CompressionMethod;

use super::{Case, cases_of, refuse};
use crate::data::hostile::archive;
use crate::data::sources::{gzip, idx, npy};

const NPY: &str = "source = npy(x = \"x.npy\")\n x: f32[2, 3]";
const NPZ: &str = "source = npz(\"z.npz\")\n x: u8[2]";
const IDX: &str = "source = idx(images = \"i.idx\", labels = \"l.idx\")\n x: u8[2, 3]\n label: class[3]";

/// An array with this header, whatever it says.
fn header(version: u8, text: &[u8], data: &[u8]) -> Vec<u8> {
    let length = (text.len() as u16).to_le_bytes();
    [b"\x93NUMPY", &[version, 0][..], &length, text, data].concat()
}

/// An array whose header has this in the place of one of its parts.
fn changed(part: &str, other: &str) -> Vec<u8> {
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 2, 3), }\n".replace(part, other);
    header(1, text.as_bytes(), &[0; 96])
}

/// Compressed zeros behind some bytes.
fn then_zeros(front: &[u8], mebibytes: usize) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(front).expect("memory");
    (0..mebibytes).for_each(|_| encoder.write_all(&[0; 1 << 20]).expect("memory"));
    encoder.finish().expect("memory")
}

#[test]
fn numpy_arrays() {
    let all = [0u8; 96];
    let zipped = gzip(&npy("<f4", "(4, 2, 3)", &all));
    let f32s = |value: f32| npy("<f4", "(4, 2, 3)", &value.to_le_bytes().repeat(24));
    refuse(&cases_of(
        "x.npy",
        NPY,
        vec![
            ("empty", Vec::new(), &["x.npy: is not a NumPy array"]),
            ("other magic", b"\x93NUMPX\x01\0".to_vec(), &["x.npy: is not a NumPy array"]),
            ("cut in the head", b"\x93NUMPY\x01\0v".to_vec(), &["x.npy: the header ends too early"]),
            ("version 0", header(0, b"{}", &all), &["x.npy", "is of version 0 of NumPy's format"]),
            ("version 9", header(9, b"{}", &all), &["x.npy", "is of version 9 of NumPy's format"]),
            (
                "header longer than the file",
                b"\x93NUMPY\x01\0\xff\xff{}".to_vec(),
                &["x.npy: the header ends too early"],
            ),
            ("header of 4 GiB", b"\x93NUMPY\x02\0\xff\xff\xff\xff{}".to_vec(), &["x.npy: the header ends too early"]),
            ("header that is no text", header(1, b"{\xff\xfe}", &all), &["x.npy: the header is not text"]),
            ("no type", changed("'descr'", "'d'"), &["x.npy: the header says no `descr`"]),
            ("no shape", changed("'shape'", "'s'"), &["x.npy: the header says no `shape`"]),
            ("no order", changed("'fortran_order'", "'f'"), &["x.npy: the header says no `fortran_order`"]),
            ("an order that is neither", changed("False", "0"), &["x.npy: the header's `fortran_order` is neither"]),
            ("column by column", changed("False", "True"), &["x.npy: is stored column by column"]),
            ("pickled objects", changed("<f4", "|O"), &["x.npy: has elements of type `|O`"]),
            ("texts", changed("<f4", "<U7"), &["x.npy: has elements of type `<U7`"]),
            ("complex numbers", changed("<f4", "<c8"), &["x.npy: has elements of type `<c8`"]),
            ("no order of bytes", changed("<f4", "xf4"), &["x.npy", "says no order of bytes"]),
            ("an empty type", changed("<f4", ""), &["x.npy"]),
            ("several types", changed("'<f4'", "[('a', '<f4')]"), &["x.npy: holds records of several types"]),
            ("a negative dim", changed("(4, 2", "(-4, 2"), &["x.npy: the shape (-4, 2, 3) is not a list"]),
            ("a dim of 65 bits", changed("(4, 2", "(18446744073709551616, 2"), &["x.npy: the shape", "is not a list"]),
            ("dims in dims", changed("(4, 2", "((4, 2"), &["x.npy: the shape", "is not a list"]),
            ("no parenthesis", changed("(4, 2, 3)", "4"), &["x.npy: the header has no shape in parentheses"]),
            (
                "a product beyond 64 bits",
                changed("(4, 2", "(4294967296, 4294967296"),
                &["x.npy: claims a shape of", "addressed"],
            ),
            (
                "bytes beyond 64 bits",
                changed("(4, 2, 3)", "(9223372036854775807,)"),
                &["x.npy: claims a shape of", "addressed"],
            ),
            (
                "records without end that hold nothing",
                changed("(4, 2, 3)", "(9223372036854775807, 0)"),
                &["x.npy", "hold nothing"],
            ),
            ("a single number", changed("(4, 2, 3)", "()"), &["x.npy: holds a single number"]),
            ("no records", npy("<f4", "(0, 2, 3)", &[]), &["x.npy: `source` gives no record"]),
            (
                "a record too many",
                changed("(4, 2", "(5, 2"),
                &["x.npy: record 5: holds 96 bytes of data, but its shape [5, 2, 3] needs 120"],
            ),
            (
                "a record too few",
                changed("(4, 2", "(3, 2"),
                &["x.npy", "holds more bytes of data, but its shape [3, 2, 3]"],
            ),
            ("a million million records", changed("(4, 2", "(1000000000000, 2"), &["x.npy", "holds 96 bytes"]),
            ("other dims", changed("(4, 2, 3)", "(4, 3, 2)"), &["`x` is declared [2, 3]", "x.npy has [3, 2] a record"]),
            (
                "64 bits that do not fit 32",
                npy("<i8", "(1, 2, 3)", &(1i64 << 40).to_le_bytes().repeat(6)),
                &["x.npy: record 1: 1099511627776 does not fit 32 bits"],
            ),
            ("infinity", f32s(f32::INFINITY), &["x.npy: record 1: `x` is inf"]),
            (
                "f64 beyond f32",
                npy("<f8", "(1, 2, 3)", &1e300f64.to_le_bytes().repeat(6)),
                &["x.npy: record 1: `x` is inf"],
            ),
            ("not a number", f32s(f32::NAN), &["x.npy: record 1: a value of `x` is missing"]),
            ("compressed and cut", zipped[..zipped.len() - 9].to_vec(), &["x.npy", "compressed data end too early"]),
            (
                "compressed and changed",
                {
                    let mut bytes = zipped.clone();
                    let end = bytes.len() - 6;
                    bytes[end] ^= 1;
                    bytes
                },
                &["x.npy: the data are damaged"],
            ),
            (
                "a bomb behind the last record",
                then_zeros(&npy("<f4", "(4, 2, 3)", &all), 2000),
                &["x.npy", "holds more bytes of data"],
            ),
            (
                "a bomb that is claimed",
                then_zeros(&npy("<f4", "(100000000, 2, 3)", &all), 2400),
                &["x.npy: holds more than fits", "a third of the free memory"],
            ),
        ],
    ));
}

/// The place of the first entry of a ZIP archive's directory.
fn directory(archive: &[u8]) -> usize {
    archive.windows(4).position(|bytes| bytes == b"PK\x01\x02").expect("an archive has a directory")
}

#[test]
fn archives_of_arrays() {
    let array = npy("|u1", "(3, 2)", &[1, 2, 3, 4, 5, 6]);
    let named = |names: &[&str]| {
        let files: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (*name, array.clone())).collect();
        archive(&files, CompressionMethod::STORE)
    };
    // Whoever writes an archive for us leaves ways out of the folder out, so they are put in here.
    let renamed = |name: &str| {
        let mut bytes = named(&[&"_".repeat(name.len())]);
        for place in 0..bytes.len() - name.len() {
            if bytes[place..].starts_with("_".repeat(name.len()).as_bytes()) {
                bytes[place..place + name.len()].copy_from_slice(name.as_bytes());
            }
        }
        bytes
    };
    let good = named(&["x.npy"]);
    let set = |offset: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        let place = directory(&good) + offset;
        changed[place..place + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let deflated = |bytes: Vec<u8>| archive(&[("x.npy", bytes)], CompressionMethod::DEFLATE);
    let zeros = |shape: &str, mebibytes: usize| [npy("|u1", shape, &[]), vec![0; mebibytes << 20]].concat();
    let mut flipped = good.clone();
    let place = flipped.windows(6).position(|bytes| bytes == [1, 2, 3, 4, 5, 6]).expect("stored");
    flipped[place] = 9;
    refuse(&cases_of(
        "z.npz",
        NPZ,
        vec![
            ("empty", Vec::new(), &["z.npz: is not a NumPy archive"]),
            ("no archive", b"PK\x03\x04 and words".to_vec(), &["z.npz: is not a NumPy archive"]),
            ("cut in the directory", good[..good.len() - 30].to_vec(), &["z.npz: is not a NumPy archive"]),
            ("no arrays", named(&[]), &["z.npz"]),
            ("a file that is no array", named(&["x.txt"]), &["z.npz: holds no array \"x\""]),
            (
                "two arrays of one name",
                named(&["x.npy", "x.npy"]),
                &["z.npz: is not a NumPy archive: it holds two arrays \"x\""],
            ),
            ("a way out of the folder", renamed("../x.npy"), &["z.npz: holds no array \"x\""]),
            ("an absolute way", renamed("/tmp/x.npy"), &["z.npz: holds no array \"x\""]),
            ("NUL in a name", renamed("x\0.npy"), &["z.npz: holds no array \"x\""]),
            (
                "a name that acts on terminals",
                renamed("q\u{1b}[31m\n::error::.npy"),
                &["z.npz: holds no array \"x\"", "\\u{1b}"],
            ),
            ("a place beyond the file", set(42, &[0xff, 0xff, 0xff, 0x7f]), &["z.npz: is not a NumPy archive"]),
            ("more bytes than claimed", set(24, &[1, 0, 0, 0]), &["z.npz"]),
            ("fewer bytes than claimed", set(24, &[0xff, 0xff, 0xff, 0x7f]), &["z.npz"]),
            ("compressed bytes beyond the file", set(20, &[0xff, 0xff, 0xff, 0x7f]), &["z.npz"]),
            ("a changed byte", flipped, &["z.npz: array \"x\"", "checksum"]),
            (
                "bzip2",
                archive(&[("x.npy", array.clone())], CompressionMethod::BZIP2),
                &["z.npz", "which is not NumPy's"],
            ),
            (
                "a bomb behind the last record",
                deflated(zeros("(1, 2)", 400)),
                &["z.npz: array \"x\"", "holds more bytes"],
            ),
            (
                "a bomb that is claimed",
                deflated(zeros("(209715200, 2)", 400)),
                &["z.npz: array \"x\"", "holds more than fits"],
            ),
            (
                "records without end that hold nothing",
                deflated(npy("|u1", "(9223372036854775807, 0)", &[])),
                &["z.npz: array \"x\"", "hold nothing"],
            ),
        ],
    ));
}

#[test]
fn idx_files() {
    let labels = idx(&[4], &[0, 1, 2, 0]);
    let claims = |kind: u8, sizes: &[u32]| {
        let mut file = idx(sizes, &[0; 24]);
        file[2] = kind;
        file
    };
    let images: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", Vec::new(), &["i.idx: is not an IDX file"]),
        ("other magic", b"\x01\0\x08\x03".to_vec(), &["i.idx: is not an IDX file"]),
        ("an unknown type", claims(0x0a, &[4, 2, 3]), &["i.idx: is not an IDX file"]),
        ("no dims", vec![0, 0, 8, 0, 1, 2], &["i.idx: is not an IDX file"]),
        (
            "255 dims, of which two are there",
            [&[0, 0, 8, 255][..], &[0, 0, 0, 1, 0, 0, 0, 1]].concat(),
            &["i.idx: the header ends too early"],
        ),
        ("255 large dims", claims(8, &[u32::MAX; 255]), &["i.idx", "more than can be addressed"]),
        ("records without end that hold nothing", claims(8, &[u32::MAX, 0, 3]), &["i.idx", "hold nothing"]),
        ("a record too many", claims(8, &[5, 2, 3]), &["i.idx: record 5: ends early"]),
        ("a record too few", claims(8, &[3, 2, 3]), &["i.idx: holds more than the 3 records"]),
        ("four thousand million records", claims(8, &[u32::MAX, 2, 3]), &["i.idx: record 5: ends early"]),
        ("wider elements than there are bytes", claims(0x0e, &[4, 2, 3]), &["i.idx: record 1: ends early"]),
        ("no records", idx(&[0, 2, 3], &[]), &["l.idx: holds 4 labels for the 0 images"]),
        ("other dims", claims(8, &[4, 3, 2]), &["`x` is declared [2, 3]", "i.idx has [3, 2] a record"]),
        (
            "a bomb behind the last record",
            then_zeros(&idx(&[4, 2, 3], &[0; 24]), 2000),
            &["i.idx: holds more than the 4 records"],
        ),
        (
            "a bomb that is claimed",
            then_zeros(&idx(&[200_000_000, 2, 3], &[]), 1200),
            &["i.idx", "holds more than fits"],
        ),
    ];
    let case = |(name, bytes, words)| Case {
        name,
        files: vec![("i.idx", bytes), ("l.idx", labels.clone())],
        body: IDX,
        words,
    };
    let mut cases: Vec<Case> = images.into_iter().map(case).collect();
    let labels: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("fewer labels", idx(&[3], &[0, 1, 2]), &["l.idx: holds 3 labels for the 4 images of"]),
        ("a label beyond the classes", idx(&[4], &[0, 1, 9, 0]), &["l.idx: record 3: `label` is 9, but class[3]"]),
        ("labels of two dims", idx(&[4, 2], &[0; 8]), &["`label` is declared", "l.idx has [2] a record"]),
    ];
    let good = idx(&[4, 2, 3], &[0; 24]);
    cases.extend(labels.into_iter().map(|(name, bytes, words)| Case {
        name,
        files: vec![("i.idx", good.clone()), ("l.idx", bytes)],
        body: IDX,
        words,
    }));
    refuse(&cases);
}

#[test]
fn cifar_files() {
    let record = |label: u8| [vec![label], vec![7; 3072]].concat();
    let two = |label: u8| [record(3), record(label)].concat();
    let body = "source = cifar_binary(\"c.bin\")\n x: u8[3, 32, 32]\n label: class[10]";
    let fine = "source = cifar_binary(\"c.bin\", labels = fine)\n x: u8[3, 32, 32]\n label: class[100]";
    let folder = "source = cifar_binary(\"c\")\n x: u8[3, 32, 32]\n label: class[10]";
    let mut cases = cases_of(
        "c.bin",
        body,
        vec![
            ("empty", Vec::new(), &["c.bin: `source` gives no record"]),
            ("cut", two(4)[..6145].to_vec(), &["c.bin: record 2: ends after 3072 of 3073 bytes"]),
            ("a label beyond the format's", two(10), &["c.bin: record 2: the label is 10"]),
            ("records of CIFAR-100", [vec![1, 2], vec![7; 3072]].concat(), &["c.bin", "this looks like CIFAR-100"]),
        ],
    );
    cases.push(Case {
        name: "a fine label beyond the format's",
        files: vec![("c.bin", [vec![1, 100], vec![7; 3072]].concat())],
        body: fine,
        words: &["c.bin: record 1: the label is 100"],
    });
    cases.push(Case {
        name: "a folder without batches",
        files: vec![("c/notes.txt", Vec::new())],
        body: folder,
        words: &["c: holds no data_batch_1.bin"],
    });
    cases.push(Case {
        name: "a missing batch",
        files: vec![("c/data_batch_1.bin", record(1)), ("c/data_batch_3.bin", record(1))],
        body: folder,
        words: &["data_batch_3.bin: is there, but data_batch_2.bin is not"],
    });
    refuse(&cases);
}
