//! Random numbers and random changes of bytes.
//!
//! Input: a seed; bytes, other bytes of the same format and words that the format knows. Output: changed bytes.
//! Invariant: equal seeds give equal changes, on every machine.

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Random(u64);

impl Random {
    /// A stream of its own for each seed, reader and input.
    pub fn new(seed: u64, reader: &str, input: u64) -> Self {
        let name = reader.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let mut random = Self(name ^ input.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, 0 where there is none.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn one_of<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }
}

/// Integers at which sizes, counts and signs go wrong.
const EDGES: [u64; 19] = [
    0,
    1,
    2,
    7,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1fff_ffff_ffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
];

/// Numbers in text at which the same goes wrong.
const TEXTS: [&str; 17] = [
    "0",
    "-1",
    "1",
    "1e999",
    "-0.0",
    "1e-999",
    "255",
    "256",
    "65536",
    "2147483647",
    "2147483648",
    "-2147483648",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "0.1e39",
    "nan",
];

/// Inputs longer than this are cut: beyond it only time grows.
const LONGEST: usize = 1 << 16;

/// Changes bytes between one and eight times, mostly few; half of the places lie near the front, where heads with sizes are.
pub fn change(bytes: &mut Vec<u8>, others: &[Vec<u8>], words: &[&str], random: &mut Random) {
    let most = 1 + random.below(8);
    for _ in 0..=random.below(most) {
        let reach = if random.once_in(2) { bytes.len().min(128) } else { bytes.len() };
        let place = random.below(reach);
        match random.below(12) {
            0 | 1 => flip(bytes, place, random),
            2 => set(bytes, place, random),
            3 | 4 => edge(bytes, place, random),
            5 | 6 => number(bytes, place, random),
            7 => bytes.truncate(place.max(1)),
            8 => splice(bytes, place, others, random),
            9 => repeat(bytes, place, random),
            10 => drop(bytes.drain(place..(place + 1 + random.below(32)).min(bytes.len()))),
            _ => insert(bytes, place, words, random),
        }
    }
    bytes.truncate(LONGEST);
}

fn flip(bytes: &mut [u8], place: usize, random: &mut Random) {
    if let Some(byte) = bytes.get_mut(place) {
        *byte ^= 1 << random.below(8);
    }
}

fn set(bytes: &mut [u8], place: usize, random: &mut Random) {
    if let Some(byte) = bytes.get_mut(place) {
        *byte = random.next() as u8;
    }
}

/// Writes an edge over one, two, four or eight bytes, in either order.
fn edge(bytes: &mut [u8], place: usize, random: &mut Random) {
    let width = 1 << random.below(4);
    let edge = random.one_of(&EDGES).copied().unwrap_or_default().wrapping_sub(random.below(2) as u64);
    let little = edge.to_le_bytes();
    if let Some(target) = bytes.get_mut(place..place + width) {
        target.copy_from_slice(&little[..width]);
        if random.once_in(2) {
            target.reverse();
        }
    }
}

/// Puts another number in the place of the next one that is written in digits.
fn number(bytes: &mut Vec<u8>, place: usize, random: &mut Random) {
    let digit = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = bytes[place.min(bytes.len())..].iter().position(digit).map(|start| start + place) else { return };
    let end = bytes[start..].iter().position(|byte| !digit(byte)).map_or(bytes.len(), |end| end + start);
    let text = random.one_of(&TEXTS).copied().unwrap_or_default();
    bytes.splice(start..end, text.bytes());
}

/// Inserts a part of another input.
fn splice(bytes: &mut Vec<u8>, place: usize, others: &[Vec<u8>], random: &mut Random) {
    let Some(other) = random.one_of(others) else { return };
    let start = random.below(other.len());
    let end = (start + 1 + random.below(64)).min(other.len());
    let part = other[start..end].to_vec();
    let place = place.min(bytes.len());
    let over = if random.once_in(2) { (place + part.len()).min(bytes.len()) } else { place };
    bytes.splice(place..over, part);
}

/// Repeats a part, rarely a thousand times.
fn repeat(bytes: &mut Vec<u8>, place: usize, random: &mut Random) {
    let end = (place + 1 + random.below(32)).min(bytes.len());
    let part = bytes[place.min(end)..end].to_vec();
    let times = if random.once_in(16) { 1000 } else { 1 + random.below(4) };
    bytes.splice(end..end, part.repeat(times));
}

/// Inserts a word of the format, or a few random bytes.
fn insert(bytes: &mut Vec<u8>, place: usize, words: &[&str], random: &mut Random) {
    let place = place.min(bytes.len());
    match random.one_of(words) {
        Some(word) if !random.once_in(4) => drop(bytes.splice(place..place, word.bytes())),
        Some(_) | None => {
            let some: Vec<u8> = (0..=random.below(8)).map(|_| random.next() as u8).collect();
            bytes.splice(place..place, some);
        }
    }
}
