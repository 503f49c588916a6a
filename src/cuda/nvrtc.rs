//! NVIDIA's run-time compiler, found where it is installed: CUDA C to images.
//!
//! Input: a text and an architecture. Output: a cubin or PTX, and what the compiler says of each function. Invariant: a
//! machine without the library gets words, never a crash.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::Library;

use super::run::{Arch, Kind};
use crate::device::DeviceError;

/// Where the library lies below an installation of CUDA.
const FOLDERS: [&str; 3] = ["lib64", "targets/x86_64-linux/lib", "lib"];
/// Its names by major version, the newest first. Version 13.0 does not find a file of its own that lies beside it: that is
/// opened before it.
const NAMES: [(u32, &str, &str); 2] = [(13, "libnvrtc.so.13", "libnvrtc-builtins.so.13.0"), (12, "libnvrtc.so.12", "")];
/// What it is told beside the architecture. It is part of what an image was made from.
pub const OPTIONS: [&str; 1] = ["--std=c++17"];

/// A handle of the library's.
type Handle = *mut std::ffi::c_void;
/// 0 is success.
type Status = c_int;

/// See the module's text.
pub struct Nvrtc {
    library: Library,
    /// Of the library.
    pub version: (u32, u32),
}

/// What it made of a text.
pub struct Compiled {
    /// The image.
    pub bytes: Vec<u8>,
    /// What it said, registers and spills of each function among it.
    pub log: String,
}

impl Nvrtc {
    /// Opens the library, at its usual places and where `CUDA_PATH` or `CUDA_HOME` says.
    ///
    /// # Errors
    /// That it is not there, and how to get it; that it is too old.
    pub fn open() -> Result<Nvrtc, DeviceError> {
        Self::open_within(u32::MAX)
    }

    /// The same of a major version that a driver for this one of CUDA takes images of.
    ///
    /// # Errors
    /// As [`Nvrtc::open`].
    pub fn open_within(driver: u32) -> Result<Nvrtc, DeviceError> {
        let installations = ["CUDA_PATH", "CUDA_HOME"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
        let folders: Vec<PathBuf> = installations
            .chain([PathBuf::from("/usr/local/cuda")])
            .flat_map(|root| FOLDERS.map(|folder| root.join(folder)))
            .collect();
        let mut names = NAMES.iter().filter(|(major, ..)| *major <= driver);
        let found = names.find_map(|(_, name, builtins)| {
            let beside = folders.iter().find_map(|folder| {
                let path = folder.join(name);
                path.is_file().then(|| keep(&folder.join(builtins)))?;
                open(&path)
            });
            beside.or_else(|| {
                keep(builtins.as_ref());
                open(name.as_ref())
            })
        });
        let library = found.ok_or_else(|| {
            let (wanted, package) = match driver {
                ..13 => ("libnvrtc.so.12, for this driver", "nvidia-cuda-nvrtc-cu12"),
                _ => ("libnvrtc.so.13 or .12", "nvidia-cuda-nvrtc"),
            };
            DeviceError(format!(
                "no NVRTC, the compiler library of CUDA ({wanted}): install the CUDA toolkit, or `pip install {package}` \
                 and name the folder of the library in LD_LIBRARY_PATH"
            ))
        })?;
        let mut nvrtc = Nvrtc { library, version: (0, 0) };
        let (mut major, mut minor) = (0, 0);
        let version = nvrtc.function::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status>(c"nvrtcVersion")?;
        // SAFETY: the library's documented signature; both places are ours.
        let status = unsafe { version(&mut major, &mut minor) };
        nvrtc.check(status)?;
        nvrtc.version = (major as u32, minor as u32);
        if major < 12 {
            return Err(DeviceError(format!("NVRTC {major}.{minor} is too old: 12 or later is needed")));
        }
        Ok(nvrtc)
    }

    /// The architectures that it compiles for.
    ///
    /// # Errors
    /// What the library refuses.
    pub fn architectures(&self) -> Result<Vec<Arch>, DeviceError> {
        type Get = unsafe extern "C" fn(*mut c_int) -> Status;
        let mut count = 0;
        let get = self.function::<Get>(c"nvrtcGetNumSupportedArchs")?;
        // SAFETY: as in `open`.
        self.check(unsafe { get(&mut count) })?;
        let mut numbers: Vec<c_int> = vec![0; usize::try_from(count).unwrap_or(0)];
        let get = self.function::<Get>(c"nvrtcGetSupportedArchs")?;
        // SAFETY: the library fills as many numbers as it has told.
        self.check(unsafe { get(numbers.as_mut_ptr()) })?;
        Ok(numbers.into_iter().filter_map(|number| Arch::parse(&format!("sm_{number}"))).collect())
    }

    /// Compiles a text.
    ///
    /// # Errors
    /// What is wrong with it, in the compiler's words: a bug of ours.
    pub fn compile(&self, text: &str, arch: Arch, kind: Kind) -> Result<Compiled, DeviceError> {
        type Create = unsafe extern "C" fn(
            *mut Handle,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> Status;
        type Destroy = unsafe extern "C" fn(*mut Handle) -> Status;
        type Compile = unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> Status;
        let source = CString::new(text).map_err(|_| DeviceError("a kernel's text holds a zero byte".into()))?;
        let number = arch.major * 10 + arch.minor;
        let target = match kind {
            Kind::Cubin => format!("--gpu-architecture=sm_{number}"),
            Kind::Ptx => format!("--gpu-architecture=compute_{number}"),
        };
        let mut options: Vec<String> = OPTIONS.map(String::from).into();
        options.push(target);
        if kind == Kind::Cubin {
            options.push("--ptxas-options=-v".into());
        }
        let options: Vec<CString> = options.into_iter().map(|option| CString::new(option).expect("plain")).collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let create = self.function::<Create>(c"nvrtcCreateProgram")?;
        let compile = self.function::<Compile>(c"nvrtcCompileProgram")?;
        let destroy = self.function::<Destroy>(c"nvrtcDestroyProgram")?;
        let mut program: Handle = ptr::null_mut();
        // SAFETY: the library's documented signatures; texts end with a zero byte and outlive the program.
        unsafe {
            self.check(create(&mut program, source.as_ptr(), c"ansatz.cu".as_ptr(), 0, ptr::null(), ptr::null()))?;
            let status = compile(program, pointers.len() as c_int, pointers.as_ptr());
            let log = self.bytes(program, c"nvrtcGetProgramLogSize", c"nvrtcGetProgramLog");
            let log = String::from_utf8_lossy(&log.unwrap_or_default()).trim_end_matches('\0').to_string();
            let made = if status == 0 {
                match kind {
                    Kind::Cubin => self.bytes(program, c"nvrtcGetCUBINSize", c"nvrtcGetCUBIN"),
                    Kind::Ptx => self.bytes(program, c"nvrtcGetPTXSize", c"nvrtcGetPTX"),
                }
            } else {
                Err(DeviceError(format!("NVRTC refuses the kernels for {arch}: {}\n{log}", self.words(status))))
            };
            destroy(&mut program);
            made.map(|bytes| Compiled { bytes, log })
        }
    }

    /// What a pair of functions gives: a length, then as many bytes.
    ///
    /// # Safety
    /// They are such functions of the library, and the program is one of its.
    unsafe fn bytes(&self, program: Handle, length: &CStr, bytes: &CStr) -> Result<Vec<u8>, DeviceError> {
        let get = self.function::<unsafe extern "C" fn(Handle, *mut usize) -> Status>(length)?;
        let mut count = 0;
        // SAFETY: by the caller's word.
        self.check(unsafe { get(program, &mut count) })?;
        let mut found = vec![0_u8; count];
        let get = self.function::<unsafe extern "C" fn(Handle, *mut c_char) -> Status>(bytes)?;
        // SAFETY: by the caller's word; the room is as long as the library has told.
        self.check(unsafe { get(program, found.as_mut_ptr().cast()) })?;
        Ok(found)
    }

    fn function<F: Copy>(&self, name: &CStr) -> Result<F, DeviceError> {
        // SAFETY: callers give the documented signature of the name.
        let found = unsafe { self.library.get::<F>(name.to_bytes_with_nul()) };
        let old = |_| DeviceError(format!("this NVRTC has no {}: a newer one is needed", name.to_string_lossy()));
        found.map(|symbol| *symbol).map_err(old)
    }

    fn check(&self, status: Status) -> Result<(), DeviceError> {
        if status == 0 { Ok(()) } else { Err(DeviceError(format!("NVRTC: {}", self.words(status)))) }
    }

    fn words(&self, status: Status) -> String {
        let Ok(words) = self.function::<unsafe extern "C" fn(Status) -> *const c_char>(c"nvrtcGetErrorString") else {
            return format!("status {status}");
        };
        // SAFETY: the library gives a text of its own that lives as long as it does.
        let text = unsafe { words(status) };
        if text.is_null() {
            return format!("status {status}");
        }
        // SAFETY: as above; it is not null.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

/// Opens a library for good if it is there.
fn keep(path: &Path) {
    if let Some(library) = open(path) {
        std::mem::forget(library);
    }
}

/// A library if it is there.
fn open(path: &Path) -> Option<Library> {
    if path.as_os_str().is_empty() {
        return None;
    }
    // SAFETY: what runs when NVIDIA's libraries are opened is theirs; other files have other names.
    unsafe { Library::new(path) }.ok()
}
