//! Libraries that stand for NVIDIA's: built once, opened before anybody looks for theirs.

#![allow(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// The device is one for the whole process.
static DEVICE: Mutex<()> = Mutex::new(());

/// The folder of `libcuda.so.1` and `libnvrtc.so.13`, for `LD_LIBRARY_PATH`.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shim");
        std::fs::create_dir_all(&folder).expect("a folder for the shim");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/shim");
        std::fs::copy(sources.join("kernel.h"), folder.join("kernel.h")).expect("copied");
        build(&sources.join("driver.cpp"), &folder, "libcuda.so.1", &["-O2"]);
        let define = format!("-DSHIM_FOLDER=\"{}\"", folder.display());
        build(&sources.join("compiler.cpp"), &folder, "libnvrtc.so.13", &["-O1", &define]);
        folder
    })
}

fn build(source: &Path, folder: &Path, name: &str, options: &[&str]) {
    let made = folder.join(format!("{name}.{}", std::process::id()));
    let mut call = Command::new("g++");
    call.args(["-std=c++17", "-Wall", "-Werror", "-fPIC", "-shared"]).args(options).arg(format!("-Wl,-soname,{name}"));
    let status = call.arg("-o").arg(&made).arg(source).arg("-ldl").status().expect("g++ is installed");
    assert!(status.success(), "{} does not compile", source.display());
    std::fs::rename(made, folder.join(name)).expect("renamed");
}

/// The libraries in this process, for one test at a time. With `ANSATZ_TEST_GPU` set, those that the machine has:
/// `scripts/gpu_suite.py`.
pub fn open() -> MutexGuard<'static, ()> {
    let guard = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    if std::env::var_os("ANSATZ_TEST_GPU").is_none() {
        forget();
    }
    guard
}

/// A new device, whatever became of the one before.
pub fn forget() {
    // SAFETY: the shim's own function without arguments.
    unsafe { libraries()[0].get::<unsafe extern "C" fn()>(b"shim_forget\0").expect("the shim's")() };
}

fn libraries() -> &'static [Library; 2] {
    static LIBRARIES: OnceLock<[Library; 2]> = OnceLock::new();
    LIBRARIES.get_or_init(|| {
        ["libcuda.so.1", "libnvrtc.so.13"].map(|name| {
            // SAFETY: nothing runs when they are opened.
            unsafe { Library::open(Some(folder().join(name)), RTLD_NOW | RTLD_GLOBAL) }.expect("the shim opens")
        })
    })
}
