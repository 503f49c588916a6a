//! Weights, checkpoints, and the other files of a run.

use ansatz::artifact::{Artifact, checksum};

use super::{project, run, trouble, write};

const BODY: &str = "source = random(samples = 8)\n x: f32[2]\n label: class[3]";

/// A safetensors file of this description.
fn described(text: &str, data: usize) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &vec![0; data]].concat()
}

/// The weights of the model, the first of which is described so; its data are 24 bytes.
fn weight(info: &str) -> Vec<u8> {
    described(
        &format!("{{\"fc.bias\":{{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[24,36]}},\"fc.weight\":{info}}}"),
        36,
    )
}

#[test]
fn weights_of_strangers() {
    let folder = project(BODY);
    let deep = "[".repeat(100_000);
    let own = "{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[0,24]}";
    let twice = format!("{own},\"fc.weight\":{own}");
    let mut not_finite = weight(own);
    let place = not_finite.len() - 36;
    not_finite[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let integers = |value: i64| {
        [&described("{\"n\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 0)[..], &value.to_le_bytes()]
            .concat()
    };
    let unreadable = "w.safetensors: not a readable safetensors file";
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), unreadable),
        ("seven bytes", vec![0; 7], unreadable),
        ("a description longer than the file", described("{}", 0)[..9].to_vec(), unreadable),
        ("a description of 16 EiB", [&[0xff; 8][..], b"{}"].concat(), unreadable),
        ("no description", described("", 0), unreadable),
        ("no JSON", described("pickle", 9), unreadable),
        ("a list", described("[]", 0), unreadable),
        ("deep lists", described(&deep, 0), unreadable),
        ("deep lists in metadata", described(&format!("{{\"__metadata__\":{deep}"), 0), unreadable),
        ("no UTF-8", [&2u64.to_le_bytes()[..], b"\xff\xfe"].concat(), unreadable),
        ("an archive of pickles", b"PK\x03\x04archive/data.pkl\x80\x02".to_vec(), unreadable),
        ("one tensor twice", weight(&twice), "describes `fc.weight` twice"),
        ("data behind the end", weight("{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[36,60]}"), unreadable),
        ("data in two tensors", weight("{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[12,36]}"), unreadable),
        (
            "an end before the beginning",
            weight("{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[24,0]}"),
            unreadable,
        ),
        ("a negative place", weight("{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[-24,0]}"), unreadable),
        ("a negative dim", weight("{\"dtype\":\"F32\",\"shape\":[-3,2],\"data_offsets\":[0,24]}"), unreadable),
        (
            "a product beyond 64 bits",
            weight("{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,24]}"),
            unreadable,
        ),
        ("more dims than data", weight("{\"dtype\":\"F32\",\"shape\":[3,3],\"data_offsets\":[0,24]}"), unreadable),
        ("an unknown type", weight("{\"dtype\":\"F33\",\"shape\":[3,2],\"data_offsets\":[0,24]}"), unreadable),
        (
            "truth values",
            described("{\"t\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2),
            "`t`: elements of type BOOL",
        ),
        ("data that nothing describes", described("{}", 12), unreadable),
        ("an integer beyond 32 bits", integers(1 << 40), "`n`: 1099511627776 does not fit 32 bits"),
        ("another shape", weight("{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}"), "fc.weight"),
        (
            "a zero dim",
            described("{\"fc.weight\":{\"dtype\":\"F32\",\"shape\":[0,2],\"data_offsets\":[0,0]}}", 0),
            "w.safetensors",
        ),
        ("not a number", not_finite, "fc.weight"),
        ("no tensor of the model", described("{}", 0), "w.safetensors"),
    ];
    let check = |(name, bytes, words): &(&str, Vec<u8>, &str)| {
        write(folder.path(), "w.safetensors", bytes);
        let commands = [
            &["train", "m.ansatz", "--run", "run", "--init", "w.safetensors"][..],
            &["eval", "m.ansatz", "--weights", "w.safetensors"],
        ];
        commands.iter().find_map(|arguments| {
            Some(format!("{name}: {}", trouble(folder.path(), arguments, &["w.safetensors", words])?))
        })
    };
    let wrong: Vec<String> = cases.iter().filter_map(check).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    write(folder.path(), "w.safetensors", weight(own));
    let output = run(folder.path(), &["eval", "m.ansatz", "--weights", "w.safetensors"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn files_of_a_run() {
    let folder = project(BODY);
    let begun = run(
        folder.path(),
        &["train", "m.ansatz", "--run", "run", "--stop-after", "0", "--set", "train.length=3 steps"],
    );
    assert!(begun.status.success(), "{}", String::from_utf8_lossy(&begun.stderr));
    let deep = "[".repeat(100_000);
    let command = std::fs::read_to_string(folder.path().join("run/run.json")).expect("text");
    let long = format!("{command}{}", " ".repeat(1 << 20));
    let twice = command.replacen('{', "{\"no_shuffle\": true,", 1);
    let texts: Vec<(&str, &str, Vec<u8>, &[&str])> = vec![
        ("run/run.json", "empty", Vec::new(), &["run.json"]),
        ("run/run.json", "no JSON", b"run".to_vec(), &["run.json"]),
        ("run/run.json", "a list", b"[1]".to_vec(), &["run.json"]),
        ("run/run.json", "deep lists", deep.clone().into_bytes(), &["run.json", "invalid type"]),
        (
            "run/run.json",
            "deep lists in a field",
            command.replace("\"overrides\": [", &format!("\"overrides\": {deep}")).into_bytes(),
            &["run.json"],
        ),
        (
            "run/run.json",
            "a field of another type",
            command.replace("false", "7").into_bytes(),
            &["run.json", "expected a boolean"],
        ),
        ("run/run.json", "a field twice", twice.into_bytes(), &["run.json", "duplicate field"]),
        ("run/run.json", "no UTF-8", b"{\"model\":\"\xff\"}".to_vec(), &["run.json", "utf-8"]),
        ("run/run.json", "too long", long.into_bytes(), &["run.json", "is longer than 1.0 MiB"]),
        ("run/metrics.jsonl", "no UTF-8", b"\xff\n".to_vec(), &["metrics.jsonl", "utf-8"]),
        ("steps.jsonl", "notes of someone", b"my notes\n".to_vec(), &["steps.jsonl", "not a step log"]),
        ("steps.jsonl", "deep lists", format!("{deep}\n").into_bytes(), &["steps.jsonl", "not a step log"]),
        ("steps.jsonl", "a negative step", b"{\"step\":-1}\n".to_vec(), &["steps.jsonl", "not a step log"]),
        ("run/last.safetensors", "empty", Vec::new(), &["last.safetensors", "has no checkpoint that is whole"]),
        (
            "run/last.safetensors",
            "weights of a stranger",
            weight("{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[0,24]}"),
            &["last.safetensors: holds weights, not a place in a run"],
        ),
    ];
    let check = |(file, name, bytes, words): &(&str, &str, Vec<u8>, &[&str])| {
        let before = std::fs::read(folder.path().join(file)).ok();
        write(folder.path(), file, bytes);
        let found = trouble(folder.path(), &["resume", "run", "--log", "steps.jsonl", "--stop-after", "1"], words);
        match before {
            Some(bytes) => write(folder.path(), file, bytes),
            None => std::fs::remove_file(folder.path().join(file)).expect("just written"),
        }
        Some(format!("{file}, {name}: {}", found?))
    };
    let wrong: Vec<String> = texts.iter().filter_map(check).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let output = run(folder.path(), &["resume", "run"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Bytes of an artifact around this body, with a right checksum.
fn artifact(body: &[u8]) -> Vec<u8> {
    let sum = checksum(std::iter::once(body));
    [b"ansatz artifact\x01", sum.as_bytes(), body].concat()
}

#[test]
fn artifacts() {
    let cases: [(&str, Vec<u8>, &str); 7] = [
        ("empty", Vec::new(), "not an artifact of this version"),
        ("another version", b"ansatz artifact\x0200000000".to_vec(), "not an artifact of this version"),
        ("the first bytes alone", b"ansatz artifact\x01".to_vec(), "cut off"),
        ("another checksum", b"ansatz artifact\x0100000000body".to_vec(), "its checksum does not hold"),
        ("no body", artifact(b""), "end of buffer"),
        ("texts of 16 EiB", artifact(&[0xff; 9]), ""),
        ("counts without end", artifact(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1, 1]), ""),
    ];
    for (name, bytes, words) in cases {
        let error = Artifact::from_bytes(&bytes).expect_err(name).to_string();
        assert!(error.to_lowercase().contains(words), "{name}: {error}");
    }
}

#[test]
fn formulas_nested_without_end_are_no_artifact() {
    use ansatz::graph::{ScalarExpr, nested};
    // `abs(abs(…))`: each level is the variant and the function.
    let level = postcard::to_stdvec(&ScalarExpr::Unary(ansatz::graph::Unary::Abs, Box::new(ScalarExpr::Const(1.0))))
        .expect("plain data");
    let end = postcard::to_stdvec(&ScalarExpr::Const(1.0)).expect("plain data");
    let head = &level[..level.len() - end.len()];
    let read = |levels: usize| postcard::from_bytes::<ScalarExpr>(&[head.repeat(levels), end.clone()].concat());
    assert!(read(nested::DEEPEST).is_ok());
    for levels in [nested::DEEPEST + 1, 1_000_000] {
        assert!(read(levels).is_err(), "{levels}");
    }
    assert!(read(3).is_ok(), "a refusal leaves no level behind");
}
