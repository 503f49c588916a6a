//! Files of strangers: whatever the bytes are, opening gives data or an error that names the file.

use std::io::{Cursor, Write};

use super::sources::{gzip, idx, npy};
use super::{folder, open};
use ansatz::runtime::data::DataError;
use proptest::prelude::*;

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

fn archive(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    // Stored entries; the offsets and sizes are those of the ZIP format (APPNOTE 4.3).
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in arrays {
        let offset = file.len() as u32;
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend(crc.sum().to_le_bytes());
        common.extend((bytes.len() as u32).to_le_bytes());
        common.extend((bytes.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        file.extend(b"PK\x03\x04");
        file.extend(&common);
        file.extend(name.as_bytes());
        file.extend(bytes);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = file.len() as u32;
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend((arrays.len() as u16).to_le_bytes());
    file.extend((arrays.len() as u16).to_le_bytes());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
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
    let folder = folder(&[("z.npz", &archive(&arrays))]);
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
    fn damaged_npz(damages in damages()) {
        let arrays = [("image.npy", npy("|u1", "(4, 2, 3)", &[7; 24])), ("label.npy", npy("|u1", "(4,)", &[0, 1, 2, 0]))];
        let mut bytes = archive(&arrays);
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
        let mut bytes = Cursor::new(Vec::new());
        let format = if jpeg { image::ImageFormat::Jpeg } else { image::ImageFormat::Png };
        image::RgbImage::from_fn(5, 4, |x, y| image::Rgb([x as u8 * 40, y as u8 * 50, 9])).write_to(&mut bytes, format).expect("encoded");
        let bytes = damaged(&bytes.into_inner(), &damages);
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
