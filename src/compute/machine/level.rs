//! Instruction-set levels.
//!
//! Input: a name, or the machine at hand. Output: a [`Level`]. Invariant: a machine that has a level has all lower ones.

use std::fmt;

use super::lanes::{Lanes, Portable};
use ansatz_program::diagnostics::Refusal;

/// An instruction-set level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Level {
    /// Plain Rust, and machine code with SSE 4.2 (x86-64-v2, from 2009 on).
    Portable,
    /// AVX2 and FMA, with BMI and LZCNT beside them (x86-64-v3).
    Avx2,
    /// AVX-512 F, VL, DQ, BW.
    Avx512,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

    /// The level of that name: `avx512`, `avx2` or `portable`.
    pub fn parse(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }

    /// The name that [`Level::parse`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    /// Numbers of 32 bits in a vector.
    pub fn lanes(self) -> usize {
        match self {
            Level::Portable => Portable::COUNT,
            Level::Avx2 => 8,
            Level::Avx512 => 16,
        }
    }

    /// Whether this machine can run the level. The primitives of a level must not be called where it cannot.
    pub fn is_available(self) -> bool {
        self <= detect()
    }

    /// Whether this machine can run machine code of the level, which has instructions of x86-64-v2 at least.
    #[cfg(target_arch = "x86_64")]
    pub fn runs_code(self) -> bool {
        self.is_available() && is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("popcnt")
    }

    /// Whether this machine can run machine code of the level.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn runs_code(self) -> bool {
        false
    }

    /// The levels that this machine can run, lowest first.
    pub fn available() -> impl Iterator<Item = Level> {
        Level::ALL.into_iter().filter(|level| level.is_available())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The highest level of this machine.
#[cfg(target_arch = "x86_64")]
pub fn detect() -> Level {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        (false, _) => Level::Portable,
    }
}

/// The highest level of this machine.
#[cfg(not(target_arch = "x86_64"))]
pub fn detect() -> Level {
    Level::Portable
}

/// The level of that name, or the best of this machine among those that there is code for.
///
/// # Errors
/// A level that this machine or the code has not, and a machine that runs no code of ours.
pub fn choose(asked: Option<&str>, coded: &[Level]) -> Result<Level, Refusal> {
    let best = detect();
    if !best.runs_code() {
        return Err(Refusal("machine code needs a processor of x86-64 with SSE 4.2".to_string()));
    }
    let names = || coded.iter().map(Level::to_string).collect::<Vec<_>>().join(", ");
    let Some(name) = asked else {
        let level = coded.iter().copied().filter(|level| *level <= best).max();
        return level
            .ok_or_else(|| Refusal(format!("this machine has {best}, and there is code for {} alone", names())));
    };
    let unknown = || Refusal(format!("no instruction set `{name}`: choose avx512, avx2 or portable"));
    let level = Level::parse(name).ok_or_else(unknown)?;
    if level > best {
        return Err(Refusal(format!("this machine has {best}, not {level}")));
    }
    if !coded.contains(&level) {
        return Err(Refusal(format!("there is no code for {level}; there is for {}", names())));
    }
    Ok(level)
}

/// The instance of generic code for the vectors of a level, compiled with its instructions, as a pointer:
/// `at_level!(level, fn(x: f32) -> f32, V => body::<V>(x))`. To call it is unsafe where the level is not available.
macro_rules! at_level {
    ($level:expr, $(extern $abi:literal)? fn $(<$of:ident: $bound:path>)?
        ($($argument:ident: $type:ty),*) $(-> $result:ty)?, $vectors:ident => $body:expr) => {{
        unsafe $(extern $abi)? fn portable $(<$of: $bound>)? ($($argument: $type),*) $(-> $result)? {
            #[allow(dead_code)]
            type $vectors = $crate::machine::lanes::Portable;
            $body
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe $(extern $abi)? fn avx2 $(<$of: $bound>)? ($($argument: $type),*) $(-> $result)? {
            #[allow(dead_code)]
            type $vectors = std::arch::x86_64::__m256;
            $body
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
        unsafe $(extern $abi)? fn avx512 $(<$of: $bound>)? ($($argument: $type),*) $(-> $result)? {
            #[allow(dead_code)]
            type $vectors = std::arch::x86_64::__m512;
            $body
        }
        let instance: unsafe $(extern $abi)? fn($($type),*) $(-> $result)? = match $level {
            $crate::machine::Level::Portable => portable,
            #[cfg(target_arch = "x86_64")]
            $crate::machine::Level::Avx2 => avx2,
            #[cfg(target_arch = "x86_64")]
            $crate::machine::Level::Avx512 => avx512,
            #[cfg(not(target_arch = "x86_64"))]
            $crate::machine::Level::Avx2 | $crate::machine::Level::Avx512 => portable,
        };
        instance
    }};
}
pub(crate) use at_level;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_names_parse_back() {
        for level in Level::ALL {
            assert_eq!(Level::parse(&level.to_string()), Some(level));
        }
        assert_eq!(Level::parse("sse9"), None);
    }

    #[test]
    fn every_machine_runs_the_portable_level() {
        assert!(Level::Portable.is_available());
        assert!(Level::available().count() >= 1);
    }
}
