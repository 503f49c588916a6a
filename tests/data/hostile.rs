//! Files of strangers: whatever the bytes are, opening gives data or an error that names the file.

use std::io::Write;

use super::sources::{gzip, idx, npy, png};
use super::{folder, open};
use ansatz::runtime::data::DataError;
use flate2::Compression;
use proptest::prelude::*;
use rawzip::CompressionMethod;

/// One change of a file.
#[derive(Clone, Debug)]
enum Damage {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        6 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(place, byte)| Damage::Set(place, byte)),
        1 => any::<prop::sample::Index>().prop_map(Damage::Cut),
        1 => (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(place, bytes)| Damage::Insert(place, bytes)),
    ];
    prop::collection::vec(one, 1..5)
}

/// Heads hold the sizes, so half of the changes go there.
fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (number, damage) in damages.iter().enumerate() {
        let reach = if number % 2 == 0 { bytes.len().min(100) } else { bytes.len() };
        if reach == 0 {
            break;
        }
        match damage {
            Damage::Set(place, byte) => bytes[place.index(reach)] = *byte,
            Damage::Cut(place) => bytes.truncate(place.index(reach)),
            Damage::Insert(place, inserted) => {
                let place = place.index(reach);
                bytes.splice(place..place, inserted.iter().copied());
            }
        }
    }
    bytes
}

/// A ZIP archive; what is not deflated is stored, whatever its method is called.
pub fn archive(arrays: &[(&str, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut archive = rawzip::ZipArchiveWriter::new(Vec::new());
    for (name, bytes) in arrays {
        let file = archive.new_file(*name).compression_method(method);
        let (mut entry, config) = file.start().expect("begun");
        let descriptor = match method {
            CompressionMethod::DEFLATE => {
                let mut writer = config.wrap(flate2::write::DeflateEncoder::new(&mut entry, Compression::best()));
                writer.write_all(bytes).expect("written");
                let (encoder, descriptor) = writer.finish().expect("counted");
                encoder.finish().expect("compressed");
                descriptor
            }
            _ => {
                let mut writer = config.wrap(&mut entry);
                writer.write_all(bytes).expect("written");
                writer.finish().expect("counted").1
            }
        };
        entry.finish(descriptor).expect("ended");
    }
    archive.finish().expect("an archive")
}

/// Opens; an error must be about a file, or about a declaration that the data contradict.
fn survives(files: &[(&str, &[u8])], body: &str) -> Result<(), TestCaseError> {
    let folder = folder(files);
    match open(folder.path(), body) {
        Ok(data) => prop_assert!(!data.train.is_empty()),
        Err(DataError::File { error, .. }) => prop_assert!(!error.message.is_empty()),
        Err(DataError::Spec(diagnostics)) => prop_assert!(!diagnostics.is_empty()),
    }
    Ok(())
}

const LABELLED: &str = "\n image: u8[2, 3]\n label: class[3]";

fn images() -> Vec<u8> {
    idx(&[4, 2, 3], &(0..24).collect::<Vec<u8>>())
}

#[test]
fn undamaged_files_open() {
    let labels = npy("|u1", "(4,)", &[0, 1, 2, 0]);
    let arrays = [("image.npy", npy("|u1", "(4, 2, 3)", &[7; 24])), ("label.npy", labels)];
    let folder = folder(&[("z.npz", &archive(&arrays, CompressionMethod::STORE))]);
    let data = open(folder.path(), &format!("source = npz(\"z.npz\"){LABELLED}")).expect("a good archive");
    assert_eq!(data.train.len(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_idx(damages in damages(), zipped: bool) {
        let bytes = if zipped { gzip(&images()) } else { images() };
        let labels = idx(&[4], &[0, 1, 2, 0]);
        survives(&[("i", &damaged(&bytes, &damages)), ("l", &labels)], &format!("source = idx(images = \"i\", labels = \"l\"){LABELLED}"))?;
    }

    #[test]
    fn damaged_npy(damages in damages()) {
        let bytes = npy("<f8", "(4, 2, 3)", &[0; 192]);
        survives(&[("x.npy", &damaged(&bytes, &damages))], "source = npy(x = \"x.npy\")\n x: f32[2, 3]")?;
    }

    #[test]
    fn damaged_npz(damages in damages(), compressed: bool) {
        let arrays = [("image.npy", npy("|u1", "(4, 2, 3)", &[7; 24])), ("label.npy", npy("|u1", "(4,)", &[0, 1, 2, 0]))];
        let method = if compressed { CompressionMethod::DEFLATE } else { CompressionMethod::STORE };
        let mut bytes = archive(&arrays, method);
        // The directory at the end is the head of an archive.
        bytes.reverse();
        let mut bytes = damaged(&bytes, &damages);
        bytes.reverse();
        survives(&[("z.npz", &bytes)], &format!("source = npz(\"z.npz\"){LABELLED}"))?;
    }

    #[test]
    fn damaged_csv(damages in damages()) {
        let table = b"a,\"b\",y\n1,2.5,0\n-3,4e2,1\n5,,2\n\"6\",7,1\n";
        survives(&[("t.csv", &damaged(table, &damages))], "source = csv(\"t.csv\")\n x: f32[2]\n y: class[3]\n prepare.x = fill(mean)")?;
    }

    #[test]
    fn damaged_pictures(damages in damages(), jpeg: bool) {
        let pixels: Vec<u8> = (0..20).flat_map(|place| [place % 5 * 40, place / 5 * 50, 9]).collect();
        let jpeg_file = include_bytes!("pictures/colour.jpg");
        let bytes = damaged(&if jpeg { jpeg_file.to_vec() } else { png(5, 4, &pixels) }, &damages);
        survives(&[("p/a/x.png", &bytes)], "source = image_folder(\"p\", size = [4, 4])\n image: u8[3, 4, 4]\n label: class[1]")?;
    }

    #[test]
    fn damaged_cifar(damages in damages()) {
        let bytes = [vec![3u8; 3073], vec![4u8; 3073]].concat();
        survives(&[("c.bin", &damaged(&bytes, &damages))], "source = cifar_binary(\"c.bin\")\n image: u8[3, 32, 32]\n label: class[10]")?;
    }
}

#[test]
fn a_compressed_array_that_claims_less_than_it_holds_is_not_unpacked_without_end() {
    // 64 MiB of zeros behind a header of one record.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&idx(&[1, 2, 3], &[0; 6])).expect("compressed");
    for _ in 0..64 {
        encoder.write_all(&vec![0; 1 << 20]).expect("compressed");
    }
    let bytes = encoder.finish().expect("compressed");
    let folder = folder(&[("i", &bytes), ("l", &idx(&[1], &[0]))]);
    let error =
        open(folder.path(), &format!("source = idx(images = \"i\", labels = \"l\"){LABELLED}")).expect_err("too long");
    assert!(error.to_string().contains("holds more than the 1 records"), "{error}");
}

#[test]
fn an_archive_is_unpacked_as_far_as_its_arrays_need_and_its_checksums_are_compared() {
    let body = "source = npz(\"z.npz\")\n x: u8[2]";
    let refused = |bytes: &[u8], words: &str| {
        let folder = folder(&[("z.npz", bytes)]);
        let error = open(folder.path(), body).expect_err("wrong").to_string();
        assert!(error.contains(words), "{error}");
    };
    // 64 MiB of zeros behind a header of three records.
    let bomb = [npy("|u1", "(3, 2)", &[1; 6]), vec![0; 64 << 20]].concat();
    refused(&archive(&[("x.npy", bomb)], CompressionMethod::DEFLATE), "z.npz: array \"x\": holds more bytes");
    let short = npy("|u1", "(1000000000000, 2)", &[1; 6]);
    refused(&archive(&[("x.npy", short)], CompressionMethod::DEFLATE), "holds 6 bytes of data");
    let good = [("x.npy", npy("|u1", "(3, 2)", &[1, 2, 3, 4, 5, 6]))];
    refused(&archive(&good, CompressionMethod::BZIP2), "which is not NumPy's");
    let mut changed = archive(&good, CompressionMethod::STORE);
    let place = changed.windows(6).position(|bytes| bytes == [1, 2, 3, 4, 5, 6]).expect("stored");
    changed[place] = 9;
    refused(&changed, "checksum");
}

/// A gzip file of so many MiB of one byte.
fn bomb(byte: u8, mebibytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..mebibytes {
        encoder.write_all(&vec![byte; 1 << 20]).expect("compressed");
    }
    encoder.finish().expect("compressed")
}

#[test]
fn rows_without_end_are_not_read_whole() {
    for byte in [b'a', b',', b'\n', b'"'] {
        let table = [gzip(b"x\n1\n"), bomb(byte, 40)].concat();
        let folder = folder(&[("t.csv", &table)]);
        let error = open(folder.path(), "source = csv(\"t.csv\")\n x: f32").expect_err("too long").to_string();
        assert!(error.contains("a record is longer than 16.0 MiB, the most that is read of one"), "{byte}: {error}");
    }
}

#[test]
fn long_cells_and_titles_are_shown_in_short() {
    let long = "é".repeat(1 << 20);
    let body = "source = csv(\"t.csv\")\n x: f32";
    let tables = [
        format!("x\n{long}\n"),
        format!("x\n1{}\n", "0".repeat(1 << 20)),
        format!("{long}\n1\n"),
        format!("x,{long}\n1,2\n1\n"),
    ];
    for table in tables {
        let folder = folder(&[("t.csv", table.as_bytes())]);
        let found = open(folder.path(), body).expect_err("wrong").into_diagnostics();
        assert!(found.iter().all(|finding| finding.message.len() < 300), "{found:?}");
        assert!(found.iter().flat_map(|finding| &finding.hints).all(|hint| hint.len() < 300), "{found:?}");
    }
}

#[test]
fn a_picture_that_claims_too_many_pixels_is_not_decoded() {
    let mut head = [&b"IHDR"[..], &100_000u32.to_be_bytes(), &100_000u32.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut crc = flate2::Crc::new();
    crc.update(&head);
    head.extend(crc.sum().to_be_bytes());
    // The decoder wants some data to begin before it tells the size.
    let picture = [&b"\x89PNG\r\n\x1a\n\0\0\0\x0d"[..], &head, b"\0\0\0\x08IDAT\x78\x9c\x03\0\0\0\0\x01"].concat();
    let folder = folder(&[("p/a/x.png", &picture)]);
    let body = "source = image_folder(\"p\", size = [4, 4])\n image: u8[3, 4, 4]\n label: class[1]";
    let error = open(folder.path(), body).expect_err("too large").to_string();
    assert!(error.contains("is 100000 × 100000, more than the 67108864 pixels that are decoded"), "{error}");
}

#[cfg(unix)]
#[test]
fn files_that_are_not_regular_are_refused_and_never_waited_for() {
    let folder = folder(&[("s/a/x.txt", b"")]);
    for (kind, name) in [("pipe", "p.csv"), ("pipe", "s/a/x.png")] {
        let made = std::process::Command::new("mkfifo").arg(folder.path().join(name)).status().expect("mkfifo runs");
        assert!(made.success());
        let body = match name {
            "p.csv" => "source = csv(\"p.csv\")\n x: f32",
            _ => "source = image_folder(\"s\", size = [4, 4])\n image: u8[3, 4, 4]\n label: class[1]",
        };
        let error = open(folder.path(), body).expect_err("no file").to_string();
        assert!(error.contains(&format!("{name}: is a {kind}, not a regular file")), "{error}");
    }
}
