//! A program to [`Code`]: its text, and images of that for the architectures that are asked for.
//!
//! Input: a program, and who compiles texts. Output: plain data, or a device that makes it when programs are loaded.

use super::code::{Text, text};
use super::run::{Arch, Code, Image, Kind};
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
