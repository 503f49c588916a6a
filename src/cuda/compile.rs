//! A program to [`Code`]: its text, and images of that for the architectures that are asked for.
//!
//! Input: a program, and who compiles texts. Output: plain data, or a device that makes it when programs are loaded.

#![allow(unsafe_code)]

use super::code::{Factors, Text, text};
use super::nvrtc::{Nvrtc, OPTIONS};
use super::run::{Arch, Code, Gpu, Image, Kind, devices};
use crate::device::DeviceError;
use crate::kernel::Program;

/// The code of a program, by whoever makes an image of a text.
///
/// # Errors
/// No text, or what the compiler says.
pub fn compile(
    program: &Program,
    targets: &[(Arch, Kind)],
    mut image: impl FnMut(&str, Arch, Kind) -> Result<Vec<u8>, DeviceError>,
) -> Result<Code, DeviceError> {
    let Text { source, functions, actions } = text(program, None)?;
    let made = |&(arch, kind): &(Arch, Kind)| Ok(Image { arch, kind, bytes: image(&source, arch, kind)? });
    let images = targets.iter().map(made).collect::<Result<Vec<_>, DeviceError>>()?;
    Ok(Code { form: Code::FORM.to_string(), program: program.fingerprint(), actions, functions, images })
}

/// Images that were made before.
pub trait Made {
    /// The image of a key: of what it was made from, word by word.
    fn find(&self, key: &[&str]) -> Option<Vec<u8>>;

    /// Keeps an image for the next time.
    fn keep(&self, key: &[&str], image: &[u8]);
}

/// NVRTC, and the images that it has made before.
pub struct Compiler<M> {
    nvrtc: Nvrtc,
    known: Vec<Arch>,
    made: M,
}

impl<M: Made> Compiler<M> {
    /// Opens NVRTC.
    ///
    /// # Errors
    /// That it is not there, and how to get it.
    pub fn new(made: M) -> Result<Self, DeviceError> {
        Self::within(u32::MAX, made)
    }

    /// Opens an NVRTC of a major version that a driver takes images of.
    ///
    /// # Errors
    /// As [`Compiler::new`].
    pub fn within(driver: u32, made: M) -> Result<Self, DeviceError> {
        let nvrtc = Nvrtc::open_within(driver)?;
        let known = nvrtc.architectures()?;
        Ok(Self { nvrtc, known, made })
    }

    /// What a file for many machines has: machine code for each family of GPUs, and for later ones what their driver compiles.
    ///
    /// # Errors
    /// NVRTC knows none of them.
    pub fn targets(&self) -> Result<Vec<(Arch, Kind)>, DeviceError> {
        let wanted = [8, 9, 10].map(|major| Arch { major, minor: 0 });
        let known: Vec<Arch> = wanted.into_iter().filter(|arch| self.known.contains(arch)).collect();
        let latest =
            *known.last().ok_or_else(|| DeviceError("this NVRTC compiles for no GPU that is supported".into()))?;
        Ok(known.into_iter().map(|arch| (arch, Kind::Cubin)).chain([(latest, Kind::Ptx)]).collect())
    }

    /// The code of a program, of what is not made before by NVRTC.
    ///
    /// # Errors
    /// As [`compile`].
    pub fn compile(&self, program: &Program, targets: &[(Arch, Kind)]) -> Result<Code, DeviceError> {
        compile(program, targets, |text, arch, kind| {
            let (major, minor) = self.nvrtc.version;
            let key = [&format!("{} nvrtc {major}.{minor} {arch} {kind:?} {OPTIONS:?}", Code::FORM), text];
            if let Some(image) = self.made.find(&key) {
                return Ok(image);
            }
            let image = self.nvrtc.compile(text, arch, kind)?.bytes;
            self.made.keep(&key, &image);
            Ok(image)
        })
    }
}

/// The first GPU, for which programs are compiled as they are loaded, unless they were before; with `profile` it measures
/// each kernel. Programs must be ones that [`verify`](crate::kernel::verify::verify) accepts, as those of `pipeline` are.
///
/// # Errors
/// No GPU, no driver, or no compiler, and how to get it.
pub fn device(profile: bool, made: impl Made + 'static) -> Result<Gpu, DeviceError> {
    // A machine without a GPU is told so, whatever else it lacks.
    let ((driver, _), _) = devices()?;
    let compiler = Compiler::within(driver, made)?;
    let compile = move |program: &Program, arch: Arch| {
        if arch.major < 8 && Factors::of(program.precision).is_some() {
            let words = format!("{arch} has no tensor cores for `precision = tf32` or `bf16`: use `strict`");
            return Err(DeviceError(words));
        }
        compiler.compile(program, &[target(arch, &compiler.known)?])
    };
    // SAFETY: what it gives is made for the program.
    unsafe { Gpu::new(profile, Box::new(compile)) }
}

/// What a compiler that knows some architectures makes for a GPU: machine code, or for one that is newer than all of them
/// what its driver compiles.
fn target(arch: Arch, known: &[Arch]) -> Result<(Arch, Kind), DeviceError> {
    if known.contains(&arch) {
        return Ok((arch, Kind::Cubin));
    }
    let older = known.iter().filter(|known| **known < arch).max();
    let older = older.ok_or_else(|| DeviceError(format!("NVRTC compiles for no GPU as old as {arch}")))?;
    Ok((*older, Kind::Ptx))
}
