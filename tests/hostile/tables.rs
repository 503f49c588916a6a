//! Text tables, and where they may lie.

use super::{Case, cases_of, project, refuse, trouble, write};
use crate::data::sources::gzip;

const CSV: &str = "source = csv(\"t.csv\")\n x: f32[2]\n label: class[3]";

fn repeated(front: &str, byte: u8) -> Vec<u8> {
    gzip(&[front.as_bytes(), &vec![byte; 20 << 20]].concat())
}

#[test]
fn csv_tables() {
    let wide =
        [(0..200_000).map(|column| format!("c{column}")).collect::<Vec<_>>().join(","), "1,".repeat(199_999) + "1"]
            .join("\n");
    let zipped = gzip(b"a,b,label\n1,2,0\n");
    refuse(&cases_of(
        "t.csv",
        CSV,
        vec![
            ("empty", Vec::new(), &["t.csv: the table is empty"]),
            ("a header alone", b"a,b,label\n".to_vec(), &["t.csv: `source` gives no record"]),
            ("no header", b"1,2,0\n3,4,1\n".to_vec(), &["t.csv: row 1: the first row holds numbers"]),
            (
                "a short row",
                b"a,b,label\n1,2,0\n3,4\n".to_vec(),
                &["t.csv: row 3: has 2 cells, but the first row has 3"],
            ),
            ("a long row", b"a,b,label\n1,2,0,5\n".to_vec(), &["t.csv: row 2: has 4 cells"]),
            ("no UTF-8", b"a,b,label\n1,2,0\n\xff,4,1\n".to_vec(), &["t.csv: row 3: is not UTF-8 text"]),
            ("NUL", b"a,b,label\n1\0,2,0\n".to_vec(), &["t.csv: row 2, column 1", "1\\u{0}", "is not a number"]),
            ("infinity", b"a,b,label\n1,inf,0\n".to_vec(), &["t.csv: row 2, column 2", "is not a finite"]),
            ("beyond f32", b"a,b,label\n1,1e39,0\n".to_vec(), &["t.csv: row 2, column 2", "is not a finite"]),
            ("hexadecimal", b"a,b,label\n1,0x10,0\n".to_vec(), &["t.csv: row 2, column 2", "is not a number"]),
            ("missing", b"a,b,label\n1,,0\n".to_vec(), &["t.csv: row 2, column 2", "a value of `x` is missing"]),
            (
                "a label beyond the classes",
                b"a,b,label\n1,2,3\n".to_vec(),
                &["t.csv: record 1: `label` is 3, but class[3]"],
            ),
            ("a negative label", b"a,b,label\n1,2,-1\n".to_vec(), &["t.csv: record 1: `label` is -1"]),
            ("half a label", b"a,b,label\n1,2,0.5\n".to_vec(), &["t.csv: record 1: `label` is 0.5"]),
            (
                "more words than classes",
                b"a,b,label\n1,2,p\n1,2,q\n1,2,r\n1,2,s\n".to_vec(),
                &["t.csv: `label` has 4 different words"],
            ),
            (
                "no such column",
                b"a,b,lable\n1,2,0\n".to_vec(),
                &["t.csv has no column \"label\"", "did you mean \"lable\"?"],
            ),
            ("two columns of one name", b"a,label,label\n1,2,0\n".to_vec(), &["t.csv has several columns \"label\""]),
            ("200,000 columns", wide.into_bytes(), &["t.csv"]),
            ("a row without end", repeated("a,b,label\n1,2,", b'7'), &["t.csv: a record is longer than 16.0 MiB"]),
            ("a quote without end", repeated("a,b,label\n1,2,\"", b'\n'), &["t.csv: a record is longer than 16.0 MiB"]),
            ("cells without end", repeated("a,b,label\n1,2", b','), &["t.csv: a record is longer than 16.0 MiB"]),
            ("compressed and cut", zipped[..zipped.len() - 9].to_vec(), &["t.csv", "compressed data end too early"]),
            (
                "compressed and changed",
                {
                    let mut bytes = zipped.clone();
                    let end = bytes.len() - 6;
                    bytes[end] ^= 1;
                    bytes
                },
                &["t.csv: the data are damaged"],
            ),
        ],
    ));
}

#[test]
fn integers_of_tables_fit_32_bits() {
    let body = "source = csv(\"t.csv\")\n x: i32\n label: class[3]";
    let table = |cell: &str| format!("x,label\n{cell},0\n").into_bytes();
    refuse(&cases_of(
        "t.csv",
        body,
        vec![
            (
                "one more than fits",
                table("2147483648"),
                &["t.csv: row 2, column 1", "is not a number of the declared type"],
            ),
            ("the mark of missing values", table("-2147483648"), &["t.csv: row 2, column 1", "is not a number"]),
            ("half", table("0.5"), &["t.csv: row 2, column 1", "is not a number"]),
        ],
    ));
}

#[test]
fn paths_of_tables() {
    let cases = [
        ("csv(\"/etc/passwd\")", "is absolute"),
        ("csv(\"../t.csv\")", "leaves the project"),
        ("csv(\"a/../../t.csv\")", "leaves the project"),
        ("csv(\"a\0b.csv\")", "NUL"),
        ("csv(\"\")", "names no file"),
        ("csv(\".git/t.csv\")", "is hidden"),
        ("csv(\"a\\\\b.csv\")", "not a plain path"),
        ("csv(\"none.csv\")", "none.csv: there is no such file"),
        ("csv(\"folder\")", "folder: is a folder, not a file"),
        ("csv(\"zero.csv\")", "zero.csv: leads through a link out of the project's folder"),
        ("csv(\"round.csv\")", "round.csv"),
        ("csv(\"pipe.csv\")", "pipe.csv: is a pipe, not a regular file"),
        ("npy(x = \"/etc/passwd\", label = \"l.npy\")", "is absolute"),
        ("npz(\"../z.npz\")", "leaves the project"),
        ("idx(images = \"../i\", labels = \"l\")", "leaves the project"),
        ("cifar_binary(\"/c\")", "is absolute"),
    ];
    let wrong = cases.iter().filter_map(|(source, words)| {
        let folder = project(&format!("source = {source}\n x: f32[2]\n label: class[3]"));
        write(folder.path(), "folder/a", "");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero.csv")).expect("linked");
            std::os::unix::fs::symlink("round.csv", folder.path().join("round.csv")).expect("linked");
        }
        let made = std::process::Command::new("mkfifo").arg(folder.path().join("pipe.csv")).status();
        assert!(made.expect("mkfifo runs").success());
        Some(format!("{source}: {}", trouble(folder.path(), &["train", "m.ansatz"], &[words])?))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_larger_than_memory_is_refused_before_it_is_read() {
    let folder = project("source = cifar_binary(\"c.bin\")\n x: u8[3, 32, 32]\n label: class[10]");
    let file = std::fs::File::create(folder.path().join("c.bin")).expect("made");
    // Takes no room on the disk.
    file.set_len(1 << 42).expect("lengthened");
    let trouble = trouble(folder.path(), &["train", "m.ansatz"], &["c.bin: holds more than fits"]);
    assert_eq!(trouble, None);
    let case =
        Case { name: "a good table", files: vec![("t.csv", b"a,b,label\n1,2,0\n".to_vec())], body: CSV, words: &[] };
    let folder = project(case.body);
    write(folder.path(), case.files[0].0, &case.files[0].1);
    let output = super::run(folder.path(), &["train", "m.ansatz", "--run", "run", "--threads", "1"]);
    assert!(output.status.success(), "the bound admits what is right: {}", String::from_utf8_lossy(&output.stderr));
}
