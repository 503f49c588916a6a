//! NVIDIA's driver: found, asked, and called without a crash where it is missing, old or broken.
//!
//! Input: none. Output: devices, and safe handles on contexts, memory, modules and graphs. Invariant: every status is looked
//! at; what a handle owns is freed once.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::rc::Rc;

use cudarc::driver::sys::{
    self, CUcontext, CUdevice_attribute, CUdeviceptr, CUevent, CUfunction, CUgraphExec, CUmodule, CUresult, CUstream,
};

use super::code::Arch;
use crate::device::DeviceError;

/// Every function of the driver that is called here: a driver without one is too old, and calling it would panic.
const FUNCTIONS: [&CStr; 38] = [
    c"cuInit",
    c"cuDriverGetVersion",
    c"cuDeviceGet",
    c"cuDeviceGetCount",
    c"cuDeviceGetName",
    c"cuDeviceGetAttribute",
    c"cuDeviceTotalMem_v2",
    c"cuDevicePrimaryCtxRetain",
    c"cuDevicePrimaryCtxRelease_v2",
    c"cuCtxSetCurrent",
    c"cuGetErrorName",
    c"cuGetErrorString",
    c"cuMemAlloc_v2",
    c"cuMemFree_v2",
    c"cuMemGetInfo_v2",
    c"cuMemHostAlloc",
    c"cuMemFreeHost",
    c"cuMemsetD8Async",
    c"cuMemcpyHtoDAsync_v2",
    c"cuMemcpyDtoHAsync_v2",
    c"cuMemcpyDtoDAsync_v2",
    c"cuModuleLoadData",
    c"cuModuleUnload",
    c"cuModuleGetFunction",
    c"cuLaunchKernel",
    c"cuStreamCreate",
    c"cuStreamDestroy_v2",
    c"cuStreamSynchronize",
    c"cuStreamBeginCapture_v2",
    c"cuStreamEndCapture",
    c"cuGraphInstantiateWithFlags",
    c"cuGraphLaunch",
    c"cuGraphDestroy",
    c"cuGraphExecDestroy",
    c"cuEventCreate",
    c"cuEventDestroy_v2",
    c"cuEventElapsedTime",
    c"cuEventRecord",
];

/// The oldest driver that is taken: that of CUDA 12.0.
const OLDEST: c_int = 12_000;

/// A GPU of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its compute capability.
    pub arch: Arch,
    /// Bytes of its memory.
    pub bytes: u64,
    /// Its multiprocessors.
    pub multiprocessors: u32,
}

/// What the driver says of a status.
fn words(status: CUresult) -> String {
    let text = |get: unsafe fn(CUresult, *mut *const c_char) -> CUresult| {
        let mut text = ptr::null();
        // SAFETY: the driver sets the pointer to a text of its own, or leaves it.
        let known = unsafe { get(status, &mut text) } == CUresult::CUDA_SUCCESS && !text.is_null();
        // SAFETY: it is one, ends with a zero byte and lives as long as the driver.
        known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    match (text(sys::cuGetErrorName), text(sys::cuGetErrorString)) {
        (Some(name), Some(meaning)) => format!("{meaning} ({name})"),
        _ => format!("status {}", status as u32),
    }
}

/// A status as a result; `what` names the act.
fn check(status: CUresult, what: &str) -> Result<(), DeviceError> {
    match status {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            Err(DeviceError(format!("{what}: the GPU has no room: a smaller batch, `--set train.batch=…`, needs less")))
        }
        status => Err(DeviceError(format!("{what}: {}", words(status)))),
    }
}

/// Opens the driver; gives its version.
///
/// # Errors
/// That it is missing, too old or without a device, and the way out.
fn open() -> Result<c_int, DeviceError> {
    // SAFETY: what runs when the driver's library is opened is NVIDIA's.
    if !unsafe { sys::is_culib_present() } {
        let words = "no CUDA driver (libcuda.so.1): install NVIDIA's driver for this GPU, version 525 or later; \
                     without a GPU, use `--device cpu`";
        return Err(DeviceError(words.into()));
    }
    // SAFETY: as above; it is there.
    let library = unsafe { sys::culib() };
    // SAFETY: the symbols are not called.
    let is_missing = |name: &&&CStr| unsafe { library.get::<*const c_void>(name.to_bytes_with_nul()) }.is_err();
    if let Some(name) = FUNCTIONS.iter().find(is_missing) {
        let name = name.to_string_lossy();
        return Err(DeviceError(format!(
            "the CUDA driver is too old: it has no {name}; version 525 or later is needed"
        )));
    }
    let mut version = 0;
    // SAFETY: the driver's documented calls; the place is ours.
    unsafe {
        match sys::cuInit(0) {
            CUresult::CUDA_ERROR_NO_DEVICE => return Err(DeviceError("the CUDA driver finds no GPU".into())),
            CUresult::CUDA_ERROR_STUB_LIBRARY => {
                let words = "the CUDA driver that was found is the toolkit's stub: take its folder (lib64/stubs) out of LD_LIBRARY_PATH";
                return Err(DeviceError(words.into()));
            }
            status => check(status, "the CUDA driver does not start")?,
        }
        check(sys::cuDriverGetVersion(&mut version), "the CUDA driver's version")?;
    }
    if version < OLDEST {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        let words = format!("the CUDA driver is too old: it is for CUDA {major}.{minor}, and 12.0 or later is needed");
        return Err(DeviceError(words));
    }
    Ok(version)
}

/// The version of CUDA that the driver is for, and its GPUs.
///
/// # Errors
/// Why there are none.
pub fn devices() -> Result<((u32, u32), Vec<Found>), DeviceError> {
    let version = open()?;
    let mut count = 0;
    // SAFETY: the driver is open; the place is ours.
    check(unsafe { sys::cuDeviceGetCount(&mut count) }, "the number of GPUs")?;
    let found = (0..count).map(|number| found(number).map(|(_, found)| found)).collect::<Result<_, _>>()?;
    Ok(((version as u32 / 1000, version as u32 % 1000 / 10), found))
}

fn found(number: c_int) -> Result<(c_int, Found), DeviceError> {
    let mut device = 0;
    let mut name = [0_u8; 256];
    let mut bytes = 0;
    let mut attributes = [0; 3];
    let wanted = [
        CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
        CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
    ];
    // SAFETY: the driver is open; the places are ours and as long as it is told.
    unsafe {
        check(sys::cuDeviceGet(&mut device, number), "the GPU")?;
        check(sys::cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int - 1, device), "the GPU's name")?;
        check(sys::cuDeviceTotalMem_v2(&mut bytes, device), "the GPU's memory")?;
        for (attribute, wanted) in attributes.iter_mut().zip(wanted) {
            check(sys::cuDeviceGetAttribute(attribute, wanted, device), "the GPU's properties")?;
        }
    }
    let [major, minor, multiprocessors] = attributes.map(|attribute| attribute as u32);
    let name = CStr::from_bytes_until_nul(&name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((device, Found { name, arch: Arch { major, minor }, bytes: bytes as u64, multiprocessors }))
}

/// The use of one GPU by this process, and the queue of its work.
pub struct Context {
    device: c_int,
    /// What is used.
    pub found: Found,
    stream: CUstream,
}

impl Context {
    /// The first GPU.
    ///
    /// # Errors
    /// As [`devices`].
    pub fn new() -> Result<Rc<Context>, DeviceError> {
        open()?;
        let (device, found) = found(0)?;
        let (mut context, mut stream): (CUcontext, CUstream) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the driver is open and the device its own; the context becomes this thread's, on which the handles stay:
        // they are not `Send`.
        unsafe {
            check(sys::cuDevicePrimaryCtxRetain(&mut context, device), "the GPU cannot be used")?;
            check(sys::cuCtxSetCurrent(context), "the GPU cannot be used")?;
            // A stream that does not wait for the default one.
            check(sys::cuStreamCreate(&mut stream, 1), "the GPU has no stream")?;
        }
        Ok(Rc::new(Context { device, found, stream }))
    }

    /// Waits until all work is done.
    ///
    /// # Errors
    /// What went wrong in any of it: the GPU may be lost.
    pub fn finish(&self) -> Result<(), DeviceError> {
        // SAFETY: the stream is ours and alive.
        check(unsafe { sys::cuStreamSynchronize(self.stream) }, "the GPU has failed")
    }

    /// Bytes of the GPU's memory that are free.
    pub fn free_bytes(&self) -> Option<u64> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the places are ours.
        let status = unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) };
        (status == CUresult::CUDA_SUCCESS).then_some(free as u64)
    }

    /// Records what `work` asks for instead of doing it.
    ///
    /// # Errors
    /// Those of `work`, and what the driver refuses.
    pub fn record(self: &Rc<Self>, work: impl FnOnce() -> Result<(), DeviceError>) -> Result<Graph, DeviceError> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let mut graph = ptr::null_mut();
        let mut exec: CUgraphExec = ptr::null_mut();
        // SAFETY: the stream is ours; the capture ends whatever `work` says.
        unsafe {
            check(sys::cuStreamBeginCapture_v2(self.stream, mode), "a step cannot be recorded")?;
            let done = work();
            let ended = sys::cuStreamEndCapture(self.stream, &mut graph);
            if let Err(error) = done {
                if !graph.is_null() {
                    sys::cuGraphDestroy(graph);
                }
                return Err(error);
            }
            check(ended, "a step cannot be recorded")?;
            let made = sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0);
            sys::cuGraphDestroy(graph);
            check(made, "a step cannot be prepared")?;
        }
        Ok(Graph { context: self.clone(), exec })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: all handles that use them hold this context, so none is left.
        unsafe {
            sys::cuStreamDestroy_v2(self.stream);
            sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

/// Memory of a GPU.
pub struct Memory {
    context: Rc<Context>,
    /// Where it begins.
    pub address: CUdeviceptr,
    /// How long it is.
    pub bytes: usize,
}

impl Memory {
    /// So many bytes, all zero.
    ///
    /// # Errors
    /// No room.
    pub fn zeros(context: &Rc<Context>, bytes: usize) -> Result<Memory, DeviceError> {
        let mut address = 0;
        // SAFETY: the place is ours.
        check(unsafe { sys::cuMemAlloc_v2(&mut address, bytes.max(1)) }, &format!("{bytes} bytes on the GPU"))?;
        let memory = Memory { context: context.clone(), address, bytes };
        memory.zero(0, bytes)?;
        Ok(memory)
    }

    /// The address of a range.
    ///
    /// # Panics
    /// Where it leaves the memory.
    fn at(&self, offset: usize, bytes: usize) -> CUdeviceptr {
        let end = offset.checked_add(bytes).filter(|end| *end <= self.bytes);
        assert!(end.is_some(), "{bytes} bytes at {offset} of {}", self.bytes);
        self.address + offset as u64
    }

    /// Zeros from a place on, in turn with other work.
    ///
    /// # Errors
    /// What the driver refuses, as all of these.
    pub fn zero(&self, offset: usize, bytes: usize) -> Result<(), DeviceError> {
        let at = self.at(offset, bytes);
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the range is ours.
        check(unsafe { sys::cuMemsetD8Async(at, 0, bytes, self.context.stream) }, "the GPU's memory cannot be cleared")
    }

    /// Copies from another place, in turn with other work.
    ///
    /// # Errors
    /// As above.
    pub fn copy(&self, offset: usize, from: &Memory, start: usize, bytes: usize) -> Result<(), DeviceError> {
        let (to, from) = (self.at(offset, bytes), from.at(start, bytes));
        // SAFETY: both ranges are ours.
        let status = unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, self.context.stream) };
        check(status, "the GPU's memory cannot be copied")
    }

    /// Writes bytes, and waits until they are there.
    ///
    /// # Errors
    /// As above.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let at = self.at(offset, bytes.len());
        // SAFETY: the range is ours; the bytes live until the copy is done.
        let status = unsafe { sys::cuMemcpyHtoDAsync_v2(at, bytes.as_ptr().cast(), bytes.len(), self.context.stream) };
        check(status, "the GPU's memory cannot be written")?;
        self.context.finish()
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// As above.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let at = self.at(offset, bytes.len());
        // SAFETY: the range is ours; the room lives until the copy is done.
        let status =
            unsafe { sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), at, bytes.len(), self.context.stream) };
        check(status, "the GPU's memory cannot be read")?;
        self.context.finish()
    }

    /// Copies a range from memory of the host, in turn with other work.
    ///
    /// # Errors
    /// As above.
    pub fn send(&self, offset: usize, from: &Host, range: std::ops::Range<usize>) -> Result<(), DeviceError> {
        let bytes = &from.bytes()[range];
        let at = self.at(offset, bytes.len());
        // SAFETY: the range is ours. The host's memory is pinned; whoever writes to it next has waited, as `Gpu::run` does.
        let status = unsafe { sys::cuMemcpyHtoDAsync_v2(at, bytes.as_ptr().cast(), bytes.len(), self.context.stream) };
        check(status, "the GPU's memory cannot be written")
    }

    /// Copies a range to memory of the host, in turn with other work.
    ///
    /// # Errors
    /// As above.
    pub fn receive(&self, offset: usize, to: &mut Host, range: std::ops::Range<usize>) -> Result<(), DeviceError> {
        let bytes = &mut to.bytes_mut()[range];
        let at = self.at(offset, bytes.len());
        // SAFETY: as `send`; whoever reads it has waited.
        let status =
            unsafe { sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), at, bytes.len(), self.context.stream) };
        check(status, "the GPU's memory cannot be read")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it is ours and nobody else's. A GPU that is lost has nothing to free.
        unsafe { sys::cuMemFree_v2(self.address) };
    }
}

/// Memory of the host that a GPU copies from and to by itself.
pub struct Host {
    _context: Rc<Context>,
    start: *mut u8,
    length: usize,
}

impl Host {
    /// So many bytes, all zero.
    ///
    /// # Errors
    /// No room.
    pub fn zeros(context: &Rc<Context>, length: usize) -> Result<Host, DeviceError> {
        let mut start: *mut c_void = ptr::null_mut();
        // SAFETY: the place is ours.
        let status = unsafe { sys::cuMemHostAlloc(&mut start, length.max(1), 0) };
        if status != CUresult::CUDA_SUCCESS {
            return Err(DeviceError(format!("{length} bytes of pinned memory of the host: {}", words(status))));
        }
        // SAFETY: the driver gave so many bytes.
        unsafe { ptr::write_bytes(start.cast::<u8>(), 0, length) };
        Ok(Host { _context: context.clone(), start: start.cast(), length })
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the driver gave so many bytes, which are initialised and ours.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }

    /// The same, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: it is ours and nobody else's.
        unsafe { sys::cuMemFreeHost(self.start.cast()) };
    }
}

/// Functions that a GPU has loaded.
pub struct Module {
    context: Rc<Context>,
    module: CUmodule,
}

/// One of them.
#[derive(Clone, Copy)]
pub struct Callable(CUfunction);

impl Module {
    /// Loads an image.
    ///
    /// # Errors
    /// What the driver refuses.
    ///
    /// # Safety
    /// It is what NVRTC made.
    pub unsafe fn load(context: &Rc<Context>, image: &[u8]) -> Result<Module, DeviceError> {
        let mut module: CUmodule = ptr::null_mut();
        // PTX is read up to a zero byte.
        let image = [image, &[0]].concat();
        // SAFETY: by the caller's word.
        let status = unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) };
        check(status, "the GPU's code cannot be loaded")?;
        Ok(Module { context: context.clone(), module })
    }

    /// A function by name.
    ///
    /// # Errors
    /// That there is none.
    pub fn function(&self, name: &str) -> Result<Callable, DeviceError> {
        let mut function: CUfunction = ptr::null_mut();
        let text = CString::new(name).map_err(|error| DeviceError(error.to_string()))?;
        // SAFETY: the module is loaded; the text ends with a zero byte.
        let status = unsafe { sys::cuModuleGetFunction(&mut function, self.module, text.as_ptr()) };
        check(status, &format!("the GPU's code has no {name}"))?;
        Ok(Callable(function))
    }

    /// Launches one of its functions, in turn with other work.
    ///
    /// # Errors
    /// What the driver refuses.
    ///
    /// # Safety
    /// The function takes so many pointers, and of what they point to touches what is its.
    pub unsafe fn launch(
        &self,
        function: Callable,
        [blocks, threads, shared_bytes]: [u32; 3],
        pointers: &mut [CUdeviceptr],
    ) -> Result<(), DeviceError> {
        let mut bytes = size_of_val(pointers);
        let mut extra: [*mut c_void; 5] = [
            // CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE, CU_LAUNCH_PARAM_END of cuda.h.
            ptr::without_provenance_mut(1),
            pointers.as_mut_ptr().cast(),
            ptr::without_provenance_mut(2),
            (&raw mut bytes).cast(),
            ptr::null_mut(),
        ];
        let (blocks, threads): (c_uint, c_uint) = (blocks, threads);
        // SAFETY: by the caller's word; the driver copies the arguments before it returns.
        let status = unsafe {
            sys::cuLaunchKernel(
                function.0,
                blocks,
                1,
                1,
                threads,
                1,
                1,
                shared_bytes,
                self.context.stream,
                ptr::null_mut(),
                extra.as_mut_ptr(),
            )
        };
        check(status, "the GPU cannot start a kernel")
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: it is ours and nobody else's.
        unsafe { sys::cuModuleUnload(self.module) };
    }
}

/// Work that was recorded.
pub struct Graph {
    context: Rc<Context>,
    exec: CUgraphExec,
}

impl Graph {
    /// Does it, in turn with other work.
    ///
    /// # Errors
    /// What the driver refuses.
    pub fn launch(&self) -> Result<(), DeviceError> {
        // SAFETY: it is ours, and so is the stream.
        check(unsafe { sys::cuGraphLaunch(self.exec, self.context.stream) }, "the GPU cannot start a step")
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it is ours and nobody else's.
        unsafe { sys::cuGraphExecDestroy(self.exec) };
    }
}

/// Moments of the GPU's clock.
pub struct Clock {
    context: Rc<Context>,
    events: Vec<CUevent>,
}

impl Clock {
    /// So many moments.
    ///
    /// # Errors
    /// What the driver refuses.
    pub fn new(context: &Rc<Context>, moments: usize) -> Result<Clock, DeviceError> {
        let mut clock = Clock { context: context.clone(), events: Vec::new() };
        for _ in 0..moments {
            let mut event: CUevent = ptr::null_mut();
            // SAFETY: the place is ours.
            check(unsafe { sys::cuEventCreate(&mut event, 0) }, "the GPU has no clock")?;
            clock.events.push(event);
        }
        Ok(clock)
    }

    /// Notes when the work up to here is done.
    ///
    /// # Errors
    /// What the driver refuses.
    pub fn note(&self, moment: usize) -> Result<(), DeviceError> {
        // SAFETY: both are ours.
        check(unsafe { sys::cuEventRecord(self.events[moment], self.context.stream) }, "the GPU's clock")
    }

    /// Nanoseconds from each moment to the next, after the work is done.
    ///
    /// # Errors
    /// What the driver refuses.
    pub fn nanoseconds(&self) -> Result<Vec<u64>, DeviceError> {
        let between = |pair: &[CUevent]| {
            let mut milliseconds = 0.0;
            // SAFETY: both are ours and were recorded.
            check(unsafe { sys::cuEventElapsedTime(&mut milliseconds, pair[0], pair[1]) }, "the GPU's clock")?;
            Ok((f64::from(milliseconds) * 1e6) as u64)
        };
        self.events.windows(2).map(between).collect()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        for event in &self.events {
            // SAFETY: they are ours and nobody else's.
            unsafe { sys::cuEventDestroy_v2(*event) };
        }
    }
}
