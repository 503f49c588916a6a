//! Pictures and folders of them.

use super::{Case, cases_of, project, refuse, trouble, write};
use crate::data::sources::png;

const FOLDER: &str = "source = image_folder(\"p\", size = [4, 4])\n x: u8[3, 4, 4]\n label: class[2]";
const AS_IT_IS: &str = "source = image_folder(\"p\")\n x: u8[3, 4, 4]\n label: class[2]";

/// A chunk of a PNG with its checksum.
fn chunk(name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(name);
    crc.update(data);
    [&(data.len() as u32).to_be_bytes()[..], name, data, &crc.sum().to_be_bytes()].concat()
}

/// A PNG of this head with no pixels in it.
fn claims(width: u32, height: u32, depth: u8, color: u8) -> Vec<u8> {
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, color, 0, 0, 0]].concat();
    let empty = [0x78, 0x9c, 0x03, 0, 0, 0, 0, 1];
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &head), &chunk(b"IDAT", &empty), &chunk(b"IEND", &[])].concat()
}

/// The shipped JPEG with other sizes in its head.
fn jpeg(height: u16, width: u16) -> Vec<u8> {
    let mut bytes = include_bytes!("../data/pictures/colour.jpg").to_vec();
    let place = bytes.windows(2).position(|marker| marker == [0xff, 0xc0]).expect("a baseline picture") + 5;
    bytes[place..place + 2].copy_from_slice(&height.to_be_bytes());
    bytes[place + 2..place + 4].copy_from_slice(&width.to_be_bytes());
    bytes
}

#[test]
fn png_files() {
    let good = png(5, 4, &[9; 60]);
    let mut changed = good.clone();
    let data = changed.windows(4).position(|name| name == b"IDAT").expect("pixels");
    changed[data + 6] ^= 1;
    let long = [&good[..8], &0x7fff_ffffu32.to_be_bytes(), &good[12..]].concat();
    refuse(&cases_of(
        "p/a/x.png",
        FOLDER,
        vec![
            ("empty", Vec::new(), &["x.png: cannot be decoded: it begins neither like a PNG nor like a JPEG"]),
            ("another format", b"GIF89a".to_vec(), &["x.png: cannot be decoded: it begins neither"]),
            ("the first bytes alone", good[..8].to_vec(), &["x.png: cannot be decoded"]),
            ("cut in the pixels", good[..data + 8].to_vec(), &["x.png: cannot be decoded"]),
            ("changed pixels", changed, &["x.png: cannot be decoded"]),
            ("a chunk of 2 GiB", long, &["x.png: cannot be decoded"]),
            ("no pixels", claims(4, 4, 8, 2), &["x.png: cannot be decoded"]),
            ("width 0", claims(0, 4, 8, 2), &["x.png: cannot be decoded"]),
            ("height 0", claims(4, 0, 8, 2), &["x.png: cannot be decoded"]),
            ("depth 3", claims(4, 4, 3, 0), &["x.png: cannot be decoded"]),
            ("colour type 5", claims(4, 4, 8, 5), &["x.png: cannot be decoded"]),
            ("a palette that is not there", claims(4, 4, 8, 3), &["x.png: cannot be decoded"]),
            (
                "ten thousand million pixels",
                claims(100_000, 100_000, 8, 2),
                &["x.png: is 100000 × 100000, more than the 67108864 pixels"],
            ),
            ("a line of four thousand million", claims(0x7fff_ffff, 1, 8, 2), &["x.png: is 1 × 2147483647, more than"]),
            (
                "512 MiB of pixels",
                claims(8192, 8192, 16, 6),
                &["x.png: takes 896.0 MiB to decode, and a third of the free memory is"],
            ),
        ],
    ));
}

#[test]
fn jpeg_files() {
    let good = include_bytes!("../data/pictures/colour.jpg");
    refuse(&cases_of(
        "p/a/x.jpg",
        FOLDER,
        vec![
            ("the first bytes alone", good[..4].to_vec(), &["x.jpg: cannot be decoded"]),
            ("cut in the head", good[..60].to_vec(), &["x.jpg: cannot be decoded"]),
            ("height 0", jpeg(0, 5), &["x.jpg: cannot be decoded"]),
            ("width 0", jpeg(5, 0), &["x.jpg: cannot be decoded"]),
            (
                "four thousand million pixels",
                jpeg(65535, 65535),
                &["x.jpg: is 65535 × 65535, more than the 67108864 pixels"],
            ),
            ("the most pixels", jpeg(8192, 8192), &["x.jpg: takes 960.0 MiB to decode"]),
        ],
    ));
}

#[test]
fn folders_of_pictures() {
    let good = png(5, 4, &[9; 60]);
    let case = |name, files: &[(&'static str, &[u8])], body, words| Case {
        name,
        files: files.iter().map(|(file, bytes)| (*file, bytes.to_vec())).collect(),
        body,
        words,
    };
    refuse(&[
        case("no folder", &[], FOLDER, &["p: there is no such folder"]),
        case("a file in its place", &[("p", b"")], FOLDER, &["p: is a file, not a folder"]),
        case("no classes", &[("p/notes.txt", b"")], FOLDER, &["p: holds no subfolder"]),
        case(
            "a class without pictures",
            &[("p/a/x.png", &good), ("p/b/n.txt", b"")],
            FOLDER,
            &["p/b: holds no PNG or JPEG file"],
        ),
        case(
            "a picture of no class",
            &[("p/a/x.png", &good), ("p/x.png", &good)],
            FOLDER,
            &["p/x.png: lies in no class folder"],
        ),
        case(
            "a picture of another size",
            &[("p/a/x.png", &good)],
            AS_IT_IS,
            &["x.png: is 4 × 5, but 4 × 4 is declared"],
        ),
        case(
            "more classes than declared",
            &[("p/a/x.png", &good), ("p/b/x.png", &good), ("p/c/x.png", &good)],
            FOLDER,
            &["`label` has 3 different words"],
        ),
        case(
            "the second of two pictures",
            &[("p/a/1.png", &good), ("p/a/2.png", b"no")],
            FOLDER,
            &["2.png: cannot be decoded"],
        ),
    ]);
}

#[cfg(unix)]
#[test]
fn links_devices_and_names_in_folders_of_pictures() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    let folder = project(FOLDER);
    let at = |name: &str| folder.path().join(name);
    let refused = |words: &[&str]| assert_eq!(trouble(folder.path(), &["train", "m.ansatz"], words), None);
    write(folder.path(), "p/a/x.png", png(5, 4, &[9; 60]));
    for target in ["/etc/passwd", "/dev/zero", "../../../x.png"] {
        symlink(target, at("p/a/y.png")).expect("linked");
        refused(&["y.png: leads through a link out of the project's folder"]);
        std::fs::remove_file(at("p/a/y.png")).expect("removed");
    }
    let pipe = std::process::Command::new("mkfifo").arg(at("p/a/y.png")).status().expect("mkfifo runs");
    assert!(pipe.success());
    refused(&["y.png: is a pipe, not a regular file"]);
    std::fs::remove_file(at("p/a/y.png")).expect("removed");
    // Shown as text, both classes would have the same name.
    for name in [&b"b\xff"[..], b"b\xfe"] {
        let class = at("p").join(std::ffi::OsStr::from_bytes(name));
        std::fs::create_dir(&class).expect("made");
        std::fs::write(class.join("x.png"), png(5, 4, &[9; 60])).expect("written");
    }
    refused(&["has a name that is not UTF-8 text, and classes go by their names"]);
}
