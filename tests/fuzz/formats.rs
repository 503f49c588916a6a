//! Valid files to begin with, and how to make a changed one pass the checks that stand before its reader.
//!
//! Output: bytes of each format, made in code. Invariant: a repaired file has right checksums and lengths, so that changes
//! reach what lies behind them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use ansatz::artifact::{Purpose, checksum};
use ansatz::cpu::Lowering;
use ansatz::runtime::checkpoint::{self, Note, Position, Tensor};
use ansatz::runtime::recipe::Recipe;
use ansatz::{model, pipeline};
use flate2::Compression;
use rawzip::CompressionMethod;

use super::random::Random;

/// An IDX file: element type, sizes, data.
pub fn idx(kind: u8, sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, kind, sizes.len() as u8];
    sizes.iter().for_each(|size| file.extend(size.to_be_bytes()));
    file.extend(data);
    file
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

/// A ZIP archive of these files, stored or deflated.
pub fn archive(files: &[(&str, &[u8])], deflated: bool) -> Vec<u8> {
    let mut archive = rawzip::ZipArchiveWriter::new(Vec::new());
    for (name, bytes) in files {
        let method = if deflated { CompressionMethod::DEFLATE } else { CompressionMethod::STORE };
        let (mut entry, config) = archive.new_file(*name).compression_method(method).start().expect("begun");
        let descriptor = if deflated {
            let mut writer = config.wrap(flate2::write::DeflateEncoder::new(&mut entry, Compression::fast()));
            writer.write_all(bytes).expect("memory");
            let (encoder, descriptor) = writer.finish().expect("memory");
            encoder.finish().expect("memory");
            descriptor
        } else {
            let mut writer = config.wrap(&mut entry);
            writer.write_all(bytes).expect("memory");
            writer.finish().expect("memory").1
        };
        entry.finish(descriptor).expect("memory");
    }
    archive.finish().expect("memory")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A small PNG of each colour type and depth.
pub fn pngs() -> Vec<Vec<u8>> {
    use png::BitDepth::{Eight, One, Sixteen, Two};
    use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
    let kinds = [
        (Grayscale, One),
        (Grayscale, Sixteen),
        (GrayscaleAlpha, Eight),
        (Indexed, Two),
        (Rgb, Eight),
        (Rgba, Sixteen),
    ];
    let picture = |(color, depth): (png::ColorType, png::BitDepth)| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 9, 7);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == Indexed {
            encoder.set_palette((0..12).collect::<Vec<u8>>());
        }
        let mut writer = encoder.write_header().expect("memory");
        let row = (9 * color.samples() * depth as usize).div_ceil(8);
        let pixels: Vec<u8> = (0..row * 7).map(|place| (place * 37 % 251) as u8).collect();
        writer.write_image_data(&pixels).expect("memory");
        writer.finish().expect("memory");
        bytes
    };
    kinds.into_iter().map(picture).collect()
}

/// Gives each chunk of a PNG the right checksum; rarely one of its heads claims other sizes or types.
pub fn repair_png(bytes: &mut [u8], random: &mut Random) {
    let magic = b"\x89PNG\r\n\x1a\n";
    let front = bytes.len().min(magic.len());
    bytes[..front].copy_from_slice(&magic[..front]);
    let mut place = magic.len();
    while let Some(head) = bytes.get(place..place + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(end) = place.checked_add(length + 8).filter(|end| end + 4 <= bytes.len()) else { break };
        if head[4..] == *b"IHDR" && length == 13 && random.once_in(4) {
            let at = place + 8 + random.below(13);
            bytes[at] = random.below(18) as u8;
        }
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[place + 4..end]);
        bytes[end..end + 4].copy_from_slice(&crc.sum().to_be_bytes());
        place = end + 4;
    }
}

/// What stands for a checkpoint's checksum while it is computed, and where: after the length and this text.
const CHECKPOINT: &[u8] = br#"{"__metadata__":{"ansatz":"{\"crc32\":\""#;

/// A checkpoint of ours, and safetensors files of other programs with each element type.
pub fn checkpoints(folder: &Path) -> Vec<Vec<u8>> {
    let path = folder.join("seed.safetensors");
    let tensor = |sizes: &[usize], integer| {
        let bytes = vec![1; sizes.iter().product::<usize>() * 4].into();
        Tensor { sizes: sizes.to_vec(), integer, bytes }
    };
    let tensors = BTreeMap::from([
        ("a.weight".to_string(), tensor(&[2, 3], false)),
        ("optimizer:m".to_string(), tensor(&[3], false)),
        ("metric:n".to_string(), tensor(&[], true)),
    ]);
    let position = Some(Position { step: 7, ..Position::default() });
    let recipe = Some(Recipe { model: "0badcafe".into(), seed: 3, ..Recipe::default() });
    checkpoint::save(&path, &tensors, &Note { position, recipe, preparation: None }).expect("a temporary folder");
    let mut all = vec![std::fs::read(&path).expect("just written")];
    for (dtype, width) in [("F16", 2), ("BF16", 2), ("F32", 4), ("F64", 8), ("I32", 4), ("I64", 8), ("U8", 1)] {
        all.push(safetensors(
            &format!("{{\"w\":{{\"dtype\":\"{dtype}\",\"shape\":[2,2],\"data_offsets\":[0,{}]}}}}", 4 * width),
            &vec![3; 4 * width],
        ));
    }
    all
}

/// A description with its length, and data.
pub fn safetensors(description: &str, data: &[u8]) -> Vec<u8> {
    [&(description.len() as u64).to_le_bytes(), description.as_bytes(), data].concat()
}

/// Sets the length of a safetensors file's description to where its braces close, and our checksum.
pub fn repair_checkpoint(bytes: &mut [u8], random: &mut Random) {
    if bytes.len() < 8 {
        return;
    }
    let mut depth = 0;
    let end = bytes[8..].iter().position(|byte| {
        depth += i64::from(*byte == b'{') - i64::from(*byte == b'}');
        depth == 0
    });
    if let Some(end) = end.filter(|_| !random.once_in(4)) {
        bytes[..8].copy_from_slice(&(end as u64 + 1).to_le_bytes());
    }
    let digits = 8 + CHECKPOINT.len()..16 + CHECKPOINT.len();
    if bytes.len() > digits.end && bytes[8..].starts_with(CHECKPOINT) {
        bytes[digits.clone()].fill(b'0');
        let sum = checksum(std::iter::once(&bytes[..]));
        bytes[digits].copy_from_slice(sum.as_bytes());
    }
}

/// A trainable model on made-up data.
pub const MODEL: &str = "model Net {\n  input x: [N, 6]\n  return x -> a: Linear(8) -> relu -> Dropout(0.2) -> b: Linear(3)\n}\n
data noise {\n  source = random(samples = 60)\n  x: f32[6]\n  label: class[3]\n  split = random(test = 0.2)\n}\n
train Net on noise {\n  loss      = cross_entropy(label)\n  optimizer = adamw(lr = 0.01)\n  schedule  = warmup(4 steps) -> cosine\n  batch     = 5\n  length    = 4 epochs\n  metrics   = accuracy\n}\n";

/// The run of [`MODEL`] as bytes.
pub fn artifact() -> Vec<u8> {
    let (project, file, found) = model::Project::from_text("net.ansatz", MODEL);
    assert!(found.is_empty(), "{found:?}");
    let training = model::training(&project, file, &[]).expect("the model is right");
    let fields = training.settings.data.declared();
    let steps = [(Purpose::Train, 5), (Purpose::Evaluate, 2)];
    let made = pipeline::artifact(&training, &fields, &steps, false, &Lowering::default()).expect("it compiles");
    made.to_bytes().expect("all sizes are bound")
}

/// Gives an artifact the right first bytes and the right checksum.
pub fn repair_artifact(bytes: &mut [u8], random: &mut Random) {
    const HEAD: &[u8] = b"ansatz artifact\x01";
    if bytes.len() < HEAD.len() + 8 || random.once_in(16) {
        return;
    }
    bytes[..HEAD.len()].copy_from_slice(HEAD);
    let sum = checksum(std::iter::once(&bytes[HEAD.len() + 8..]));
    bytes[HEAD.len()..HEAD.len() + 8].copy_from_slice(sum.as_bytes());
}
