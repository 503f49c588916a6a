//! Every way in which an item or a file can be wrong is an error that names the place.

use super::sources::{gzip, idx, npy};
use super::{expect_refusal, folder, refusal, repository};

const LABELLED: &str = "\n x: f32[2]\n y: class[2]";

#[test]
fn an_item_reports_all_its_mistakes_at_once() {
    let body = "sourse = csv(\"t.csv\")\n image: u8[3, 4, 4]\n label: clas[10]\n label2: class\n words: text
        prepare.imag = scale(2)\n prepare.image = scal(2) -> clip(5, 1) -> fill(mode)\n split = randon(test = 0.1)";
    let words = [
        "a data item has no key `sourse` [did you mean `source`?]",
        "`d` says no source",
        "unknown element type `clas` [did you mean `class`?]",
        "`label2` needs the number of its classes",
        "text fields are not supported",
        "there is no field `imag` [did you mean `image`?]",
        "there is no preparation `scal` [did you mean `scale`?]",
        "the lower bound 5 lies above the upper bound 1",
        "`mode` is not one of `mean`, `median`",
        "there is no split `randon` [did you mean `random`?]",
    ];
    expect_refusal(&repository(), body, &words);
}

#[test]
fn unknown_sources_and_arguments_are_refused_with_the_nearest_name() {
    let here = repository();
    expect_refusal(&here, &format!("source = cvs(\"t\"){LABELLED}"), &["no source `cvs` [did you mean `csv`?]"]);
    expect_refusal(
        &here,
        &format!("source = csv(\"t\", heder = true){LABELLED}"),
        &["no argument `heder` [did you mean `header`?]"],
    );
    expect_refusal(&here, &format!("source = csv(\"t\", 1, 2){LABELLED}"), &["takes no further argument"]);
    expect_refusal(&here, &format!("source = csv(header = true){LABELLED}"), &["`csv` needs `path`"]);
    expect_refusal(&here, &format!("source = csv(5){LABELLED}"), &["expected a text in quotes, found the number 5"]);
    expect_refusal(&here, &format!("source = idx(images = \"a\"){LABELLED}"), &["`idx` needs `labels`"]);
    expect_refusal(&here, &format!("source = npy(x = \"a\"){LABELLED}"), &["`npy` needs `y`"]);
    expect_refusal(
        &here,
        &format!("source = csv(\"t\")\n source = csv(\"t\"){LABELLED}"),
        &["`source` is given twice"],
    );
    expect_refusal(&here, "source = csv(\"t\")\n x: f32\n x: f32", &["the field `x` is declared twice"]);
    expect_refusal(&here, "source = csv(\"t\")", &["declares no field"]);
    expect_refusal(&here, &format!("source = spirals(classes = 1000000, points = 1000000){LABELLED}"), &["too many"]);
    expect_refusal(
        &here,
        &format!("source = csv(\"t\")\n split = [0.8, 0.1, 0.1]{LABELLED}"),
        &["split = random(valid"],
    );
    expect_refusal(
        &here,
        &format!("source = csv(\"t\")\n split = random(test = 0.6, valid = 0.4){LABELLED}"),
        &["nothing to train on"],
    );
    let both = format!("source = csv(\"t\")\n test = csv(\"u\")\n split = random(test = 0.2){LABELLED}");
    expect_refusal(&here, &both, &["`test` has a source of its own and a share of the split"]);
}

#[test]
fn stages_are_refused_where_their_types_do_not_fit() {
    let body =
        |lines: &str| format!("source = random_images(samples = 9)\n image: u8[3, 4, 4]\n label: class[2]\n {lines}");
    let cases = [
        ("prepare.image = one_hot", "`one_hot` needs a class field"),
        ("prepare.label = one_hot -> scale(2)", "`one_hot` must be the last stage"),
        ("prepare.label = scale(2)", "put `cast(f32)` before it"),
        ("prepare.label = fill(2)", "2 cannot fill `label`"),
        ("prepare.image = normalize", "`normalize` needs `mean`"),
        ("prepare.image = normalize(mean = [1, 2], std = 1)", "`mean` has 2 numbers for 3 channels"),
        ("prepare.image = normalize(mean = 0, std = 0)", "a standard deviation is not above 0"),
        ("prepare.image = drop_missing", "write `prepare = drop_missing`"),
        ("prepare = scale(2)", "write `prepare.FIELD = scale…`"),
        ("augment = random_flip(horizontal)", "write `augment.image = …`"),
        ("augment.image = random_flip(sideways)", "not one of `horizontal`, `vertical`"),
        ("augment.image = random_crop(9, pad = 2)", "a crop of 9 × 9 does not fit 4 × 4 with 2 around it"),
        ("augment.image = rotate(-10, 10)", "more than a full turn"),
        ("augment.image = random_flip(horizontal, p = 2)", "2 is no probability"),
        ("augment.label = noise(1)", "whole numbers, which cannot be augmented"),
        ("augment.image = zoom(0, 1)", "leaves nothing"),
    ];
    for (lines, words) in cases {
        expect_refusal(&repository(), &body(lines), &[words]);
    }
}

#[test]
fn missing_files_and_folders_in_place_of_files_are_named() {
    let folder = folder(&[("sub/a.csv", b"x,y\n1,0\n")]);
    expect_refusal(
        folder.path(),
        &format!("source = csv(\"none.csv\"){LABELLED}"),
        &["none.csv: there is no such file"],
    );
    expect_refusal(folder.path(), &format!("source = csv(\"sub\"){LABELLED}"), &["sub: is a folder, not a file"]);
    let images = "\n image: u8[1, 2, 2]\n label: class[2]";
    expect_refusal(
        folder.path(),
        &format!("source = image_folder(\"none\"){images}"),
        &["none: there is no such folder"],
    );
    expect_refusal(
        folder.path(),
        &format!("source = image_folder(\"sub/a.csv\"){images}"),
        &["is a file, not a folder"],
    );
    expect_refusal(folder.path(), &format!("source = image_folder(\"sub\"){images}"), &["holds no subfolder"]);
    expect_refusal(folder.path(), &format!("source = cifar_binary(\"sub\"){images}"), &["holds no data_batch_1.bin"]);
}

#[test]
fn bad_tables_are_refused_with_row_and_column() {
    let table = |bytes: &[u8], lines: &str| {
        let folder = folder(&[("t.csv", bytes)]);
        refusal(folder.path(), &format!("source = csv(\"t.csv\")\n a: f32\n b: f32\n y: class[2]\n{lines}"))
    };
    let cases: [(&[u8], &str, &str); 14] = [
        (b"a,b,y\n1,2,0\n1,two,1\n", "", "t.csv: row 3, column 2 (\"b\"): \"two\" is not a number"),
        (b"a,b,y\n1,2,0\n1,2\n", "", "t.csv: row 3: has 2 cells, but the first row has 3"),
        (b"a,b,y\n1,2,0\n1,2,2\n", "", "t.csv: record 2: `y` is 2, but class[2] has labels 0 to 1"),
        (b"a,b,y\n1,2,-1\n", "", "record 1: `y` is -1"),
        (b"a,b,y\n1,2,1\n1,2,0.5\n", "", "t.csv: record 2: `y` is 0.5, which is not the number of a class"),
        (b"a,bb,y\n1,2,0\n", "", "t.csv has no column \"b\""),
        (b"1,2,0\n3,4,1\n", "", "the first row holds numbers, not names [say `header = false`"),
        (b"a,b,y\n", "", "`source` gives no record"),
        (b"", "", "the table is empty"),
        (
            b"a,b,y\n1,,0\n",
            "",
            "t.csv: row 2, column 2 (\"b\"): a value of `b` is missing [say `prepare = drop_missing`",
        ),
        (b"a,b,y\n1,nan,0\n", "", "row 2, column 2 (\"b\"): a value of `b` is missing"),
        (b"a,b,y\n1,2,\n", "", "a value of `y` is missing [say `prepare = drop_missing`]"),
        (b"a,b,y\n1,1e99,0\n", "", "not a finite"),
        (b"a,b,y\n1,\xff,0\n", "", "row 2: is not UTF-8 text"),
    ];
    for (bytes, lines, words) in cases {
        let refusal = table(bytes, lines);
        assert!(refusal.contains(words), "no {words:?} in:\n{refusal}");
    }
    assert!(table(b"a,b,y\n,2,0\n1,,1\n", "prepare = drop_missing").contains("`source` gives no record"));
}

#[test]
fn declared_sizes_must_fit_the_table() {
    let folder = folder(&[("t.csv", b"a,b,c,y\n1,2,3,0\n")]);
    let body = |field: &str| format!("source = csv(\"t.csv\")\n {field}\n y: class[2]");
    expect_refusal(folder.path(), &body("x: f32[4]"), &["`x` needs 4 columns, but t.csv has 3 left for it"]);
    expect_refusal(folder.path(), &body("x: f32[2]"), &["`x` needs 2 columns, but t.csv has 3 left for it"]);
    expect_refusal(
        folder.path(),
        &body("x: f32[2] = columns(0, 2)"),
        &["`x` is declared [2] (2 values a record), but t.csv has 3 values"],
    );
    expect_refusal(folder.path(), &body("x: f32[4] = columns(0, 9)"), &["t.csv has columns 0 to 3, not 9"]);
    expect_refusal(folder.path(), &body("x: f32[2] = columns(\"a\", \"bb\")"), &["t.csv has no column \"bb\""]);
    expect_refusal(folder.path(), &body("x: f32[2] = cols(0, 1)"), &["this does not choose columns"]);
    expect_refusal(
        folder.path(),
        &body("x: f32[4294967295, 4294967295, 4294967295]"),
        &["would hold no value or too many"],
    );
}

#[test]
fn damaged_idx_files_are_refused_without_panic() {
    let body = "source = idx(images = \"i\", labels = \"l\")\n image: u8[2, 2]\n label: class[3]";
    let good = idx(&[3, 2, 2], &[1; 12]);
    let labels = idx(&[3], &[0, 1, 2]);
    let zipped = gzip(&idx(&[500, 2, 2], &(0..2000u32).map(|x| ((x * 7919) >> 3) as u8).collect::<Vec<_>>()));
    let cases: [(&str, Vec<u8>, Vec<u8>, &str); 12] = [
        ("magic", b"PNG!".to_vec(), labels.clone(), "i: is not an IDX file: it begins with [50, 4e, 47, 21]"),
        ("empty", vec![], labels.clone(), "i: is not an IDX file"),
        ("head", good[..9].to_vec(), labels.clone(), "i: the header ends too early"),
        ("short", good[..good.len() - 3].to_vec(), labels.clone(), "i: record 3: ends early"),
        ("long", [good.clone(), vec![0]].concat(), labels.clone(), "holds more than the 3 records"),
        ("gzip", zipped[..zipped.len() / 2].to_vec(), labels.clone(), "the file is truncated"),
        ("range", good.clone(), idx(&[3], &[0, 3, 1]), "l: record 2: `label` is 3, but class[3] has labels 0 to 2"),
        ("count", good.clone(), idx(&[2], &[0, 1]), "l: holds 2 labels for the 3 images"),
        (
            "size",
            idx(&[3, 2, 3], &[1; 18]),
            labels.clone(),
            "`image` is declared [2, 2] (4 values a record), but i has [2, 3]",
        ),
        ("huge", idx(&[u32::MAX, u32::MAX, u32::MAX], &[1; 12]), labels.clone(), "more than can be addressed"),
        ("claim", idx(&[u32::MAX, 2, 2], &[1; 12]), labels.clone(), "i: record 4: ends early"),
        ("none", idx(&[0, 2, 2], &[]), idx(&[0], &[]), "`source` gives no record"),
    ];
    for (name, images, labels, words) in cases {
        let folder = folder(&[("i", &images), ("l", &labels)]);
        let refusal = refusal(folder.path(), body);
        assert!(refusal.contains(words), "{name}: no {words:?} in:\n{refusal}");
    }
}

#[test]
fn damaged_arrays_are_refused_without_panic() {
    let cases: [(&str, Vec<u8>, &str); 11] = [
        ("wide letter", npy("é4", "(1, 2)", &[0; 8]), "elements of type `é4`"),
        ("no letter", npy("", "(1, 2)", &[0; 8]), "elements of type ``"),
        ("magic", b"not an array".to_vec(), "does not begin with \\x93NUMPY"),
        ("header", npy("<f4", "(1, 2)", &[])[..20].to_vec(), "the header ends too early"),
        (
            "short",
            npy("<f4", "(3, 2)", &[0; 20]),
            "x.npy: record 3: holds 20 bytes of data, but its shape [3, 2] needs 24",
        ),
        ("huge", npy("<f4", "(4294967296, 4294967296, 4294967296)", &[0; 8]), "more than can be addressed"),
        ("claim", npy("<f4", "(1000000000000, 2)", &[0; 8]), "holds 8 bytes"),
        ("type", npy("<U5", "(1, 2)", &[0; 40]), "elements of type `<U5`"),
        ("scalar", npy("<f4", "()", &[0; 4]), "the first dim must count the records"),
        ("infinite", npy("<f4", "(1, 2)", &[0, 0, 0, 0, 0, 0, 0x80, 0x7f]), "x.npy: record 1: `x` is inf"),
        (
            "missing",
            npy("<f4", "(1, 2)", &[0, 0, 0, 0, 0, 0, 0xc0, 0x7f]),
            "x.npy: record 1: a value of `x` is missing",
        ),
    ];
    for (name, bytes, words) in cases {
        let folder = folder(&[("x.npy", &bytes), ("z.npz", b"PK\x03\x04 nonsense")]);
        let refusal_text = refusal(folder.path(), "source = npy(x = \"x.npy\")\n x: f32[2]");
        assert!(refusal_text.contains(words), "{name}: no {words:?} in:\n{refusal_text}");
        expect_refusal(folder.path(), "source = npz(\"z.npz\")\n x: f32[2]", &["is not a NumPy archive"]);
    }
}

#[test]
fn bytes_and_integers_are_checked_when_they_come_from_floats() {
    let folder = folder(&[("t.csv", b"a\n1\n256\n"), ("u.csv", b"a\n1\n2.5\n")]);
    expect_refusal(
        folder.path(),
        "source = csv(\"t.csv\")\n a: u8",
        &["record 2: `a` is 256, which is not a whole number from 0 to 255"],
    );
    expect_refusal(
        folder.path(),
        "source = csv(\"u.csv\")\n a: i32",
        &["row 3, column 1 (\"a\"): \"2.5\" is not a number of the declared type"],
    );
}

#[test]
fn damaged_pictures_are_named() {
    let folder = folder(&[("p/a/1.png", b"\x89PNG\r\n\x1a\nnonsense"), ("p/b/2.jpg", b"")]);
    let body = "source = image_folder(\"p\", size = [2, 2])\n image: u8[3, 2, 2]\n label: class[2]";
    expect_refusal(folder.path(), body, &["p/a/1.png: cannot be decoded", "replace or remove the file"]);
}
