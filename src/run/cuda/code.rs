//! A program for a GPU, as plain data.
//!
//! Input: made by the half that makes code. Output: loaded by a [`Gpu`](super::Gpu), here or elsewhere. Invariant: the images
//! hold no addresses: a kernel is told by its arguments where each of its buffers lies. They belong to the one program
//! that they were made for.

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Code {
    /// The layout of whoever made it: [`Code::FORM`].
    pub form: String,
    /// What it was made from, see [`Program::fingerprint`](crate::kernel::Program::fingerprint).
    pub program: String,
    /// What a step does, in order.
    pub actions: Vec<Action>,
    /// How many functions the images have; their names are those of [`function_name`].
    pub functions: usize,
    /// The same functions for several architectures.
    pub images: Vec<Image>,
}

impl Code {
    /// What code must have been made for, so that its kernels find what they expect.
    pub const FORM: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("ANSATZ_LAYOUT"), " cuda");

    /// The image that runs on an architecture.
    pub fn image(&self, arch: Arch) -> Option<&Image> {
        let exact = self.images.iter().filter(|image| image.kind == Kind::Cubin && image.arch.runs_on(arch));
        let later = self.images.iter().filter(|image| image.kind == Kind::Ptx && image.arch <= arch);
        exact.max_by_key(|image| image.arch).or(later.max_by_key(|image| image.arch))
    }
}

/// The name of a function in the images of a [`Code`].
pub fn function_name(number: usize) -> String {
    format!("k{number}")
}

/// What one kernel of the program becomes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Action {
    /// Runs a function.
    Launch(Launch),
    /// Fills bytes of the arena with zeros.
    Zero {
        /// Where.
        offset: usize,
        /// How many.
        bytes: usize,
    },
    /// Copies bytes of the arena.
    Copy {
        /// From here.
        from: usize,
        /// To here.
        to: usize,
        /// How many.
        bytes: usize,
    },
}

/// One launch of a function.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Launch {
    /// Which function.
    pub function: usize,
    /// Blocks.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of shared memory of a block.
    pub shared_bytes: u32,
    /// Offsets in the arena of the buffers that it touches, in the order of its arguments.
    pub buffers: Vec<usize>,
}

/// The functions for one architecture.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Image {
    /// Which architecture.
    pub arch: Arch,
    /// Machine code, or what a driver makes machine code of.
    pub kind: Kind,
    /// The file that NVRTC gave.
    pub bytes: Vec<u8>,
}

/// What an [`Image`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// Machine code of one architecture.
    Cubin,
    /// Text that the driver of a later architecture compiles.
    Ptx,
}

/// A compute capability, such as 9.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Arch {
    /// 9 of 9.0.
    pub major: u32,
    /// 0 of 9.0.
    pub minor: u32,
}

impl Arch {
    /// `sm_90`.
    pub fn parse(name: &str) -> Option<Arch> {
        let digits = name.strip_prefix("sm_")?;
        let number: u32 = digits.parse().ok().filter(|number| (10..1000).contains(number))?;
        Some(Arch { major: number / 10, minor: number % 10 })
    }

    /// Machine code for this architecture runs on another: on the same and those of its family that came later.
    fn runs_on(self, other: Arch) -> bool {
        self.major == other.major && self.minor <= other.minor
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sm_{}{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_the_latest_that_runs() {
        let arch = |name: &str| Arch::parse(name).expect("an architecture");
        let image = |name: &str, kind| Image { arch: arch(name), kind, bytes: Vec::new() };
        let images = vec![
            image("sm_80", Kind::Cubin),
            image("sm_86", Kind::Cubin),
            image("sm_90", Kind::Cubin),
            image("sm_90", Kind::Ptx),
        ];
        let code = Code { form: String::new(), program: String::new(), actions: Vec::new(), functions: 0, images };
        let found = |name: &str| code.image(arch(name)).map(|image| (image.arch.to_string(), image.kind));
        assert_eq!(found("sm_80"), Some(("sm_80".into(), Kind::Cubin)));
        assert_eq!(found("sm_89"), Some(("sm_86".into(), Kind::Cubin)));
        assert_eq!(found("sm_90"), Some(("sm_90".into(), Kind::Cubin)));
        assert_eq!(found("sm_120"), Some(("sm_90".into(), Kind::Ptx)));
        assert_eq!(found("sm_75"), None);
        assert_eq!([Arch::parse("sm_"), Arch::parse("90"), Arch::parse("sm_9")], [None; 3]);
    }
}
