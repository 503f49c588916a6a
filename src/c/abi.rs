//! The C interface, function by function as `ansatz.h` has them.
//!
//! Input: pointers of the caller. Output: a status, and what the caller's pointers name. Invariants: a pointer is looked at
//! only after it was found not to be null and its length was held against the model; a panic becomes a status; a run that
//! is called by two threads at once refuses the second.

use std::cell::{RefCell, UnsafeCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::describe::Entry;
use crate::run::{Kind, Options, Problem, Run, refused};

/// Done.
pub const OK: c_int = 0;
/// Refused; nothing has changed.
pub const REFUSED: c_int = 1;
/// The step was taken, and the loss or a tensor is not finite.
pub const NOT_FINITE: c_int = 2;
/// A bug of this library; the run can only be destroyed.
pub const BROKEN: c_int = 3;

/// What a run is created with: `ansatz_options`.
#[repr(C)]
pub struct RawOptions {
    size: usize,
    threads: usize,
    level: *const c_char,
    seed: *const u64,
    total_steps: u64,
    steps_per_epoch: u64,
}

/// Samples of one field: `ansatz_input`.
#[repr(C)]
pub struct RawInput {
    data: *const c_void,
    bytes: usize,
}

/// Room for one output: `ansatz_output`.
#[repr(C)]
pub struct RawOutput {
    data: *mut c_void,
    bytes: usize,
}

/// One field, output, tensor or metric: `ansatz_info`.
#[repr(C)]
pub struct RawInfo {
    name: *const c_char,
    sizes: *const usize,
    rank: usize,
    elements: usize,
    element: i32,
    role: i32,
    classes: usize,
}

/// A run behind its pointer: `ansatz_run`.
pub struct Handle {
    busy: AtomicBool,
    inner: UnsafeCell<Inner>,
}

struct Inner {
    run: Run,
    error: CString,
    is_broken: bool,
}

thread_local! {
    /// What was wrong where there was no run to tell it.
    static ERROR: RefCell<CString> = RefCell::default();
    /// The error of a run that this thread has asked for.
    static TOLD: RefCell<CString> = RefCell::default();
}

fn text(words: &str) -> CString {
    CString::new(words.replace('\0', " ")).expect("zeros were replaced")
}

fn tell_thread(words: &str) {
    ERROR.with(|error| *error.borrow_mut() = text(words));
}

/// What a panic says.
fn panic_words(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("a bug of ansatz: {}; destroy this run", words.unwrap_or("a panic without words"))
}

/// Does something with a run that nobody else uses meanwhile, and keeps what was wrong.
///
/// # Safety
/// The pointer is null or that of a run that was created and is not destroyed.
unsafe fn with(run: *const Handle, work: impl FnOnce(&mut Run) -> Result<(), Problem>) -> c_int {
    // SAFETY: not null, so a run that lives, by the promise of the caller; of a handle only `busy` is shared.
    let Some(handle) = (unsafe { run.as_ref() }) else {
        tell_thread("the run is NULL");
        return REFUSED;
    };
    if handle.busy.swap(true, Ordering::Acquire) {
        tell_thread("the run is in use by another thread");
        return REFUSED;
    }
    // SAFETY: `busy` was false and is true now, so no other reference to the inner part exists until it is false again.
    let inner = unsafe { &mut *handle.inner.get() };
    let done = match inner.is_broken {
        true => Ok(Err(refused("an earlier call met a bug of ansatz; this run can only be destroyed"))),
        false => catch_unwind(AssertUnwindSafe(|| work(&mut inner.run))),
    };
    let (status, words) = match done {
        Ok(Ok(())) => (OK, None),
        Ok(Err(problem @ Problem::Refused(_))) => {
            (if inner.is_broken { BROKEN } else { REFUSED }, Some(problem.to_string()))
        }
        Ok(Err(problem @ Problem::NotFinite(_))) => (NOT_FINITE, Some(problem.to_string())),
        Err(panic) => (BROKEN, Some(panic_words(&*panic))),
    };
    inner.is_broken |= status == BROKEN;
    if let Some(words) = words {
        inner.error = text(&words);
    }
    handle.busy.store(false, Ordering::Release);
    status
}

/// The caller's fields.
///
/// # Safety
/// A pointer that is not null is that of so many fields, and each of those of so many bytes that live as long as the call.
unsafe fn inputs<'a>(fields: *const RawInput, count: usize) -> Result<Vec<Option<&'a [u8]>>, Problem> {
    if fields.is_null() {
        return Err(refused("the fields are NULL"));
    }
    if count > MAX_COUNT {
        return Err(refused(&format!("{count} fields are more than there can be")));
    }
    // SAFETY: of so many elements, by the promise of the caller.
    let fields = unsafe { std::slice::from_raw_parts(fields, count) };
    fields
        .iter()
        .map(|field| match field.data.is_null() {
            true => Ok(None),
            false if isize::try_from(field.bytes).is_err() => Err(refused("a field has more bytes than memory")),
            // SAFETY: of so many bytes, by the promise of the caller.
            false => Ok(Some(unsafe { std::slice::from_raw_parts(field.data.cast(), field.bytes) })),
        })
        .collect()
}

/// More fields or outputs than a model has: a length of garbage is told from a list by it.
const MAX_COUNT: usize = 1 << 16;

/// A text of the caller.
///
/// # Safety
/// The pointer is null or that of a text that ends in a zero byte and lives as long as the call.
unsafe fn words<'a>(text: *const c_char, what: &str) -> Result<&'a str, Problem> {
    if text.is_null() {
        return Err(refused(&format!("the {what} is NULL")));
    }
    // SAFETY: not null, and ends in a zero byte.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| refused(&format!("the {what} is not UTF-8")))
}

/// Writes through a pointer of the caller that may be null.
///
/// # Safety
/// The pointer is null or may be written.
unsafe fn give<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: may be written, by the promise of the caller; it need not be aligned.
        unsafe { place.write_unaligned(value) };
    }
}

/// The version of the library, such as `0.1.0`; never NULL, lives as long as the program.
#[unsafe(no_mangle)]
pub extern "C" fn ansatz_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// See `ansatz.h`.
///
/// # Safety
/// Pointers are as `ansatz.h` says, and the contents are those of `ansatz build`: their machine code is run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_create(
    contents: *const c_void,
    length: usize,
    options: *const RawOptions,
    run: *mut *mut Handle,
) -> c_int {
    let work = || -> Result<Run, Problem> {
        if contents.is_null() || options.is_null() || run.is_null() {
            return Err(refused("the contents, the options or the place of the run is NULL"));
        }
        // SAFETY: not null. The first member is read alone until it says that the others are there.
        let size = unsafe { (&raw const (*options).size).read_unaligned() };
        if size != size_of::<RawOptions>() {
            let known = size_of::<RawOptions>();
            return Err(refused(&format!(
                "the options have {size} bytes, not {known}: another ansatz.h, or `size` is not set"
            )));
        }
        if isize::try_from(length).is_err() {
            return Err(refused("the contents are longer than memory"));
        }
        // SAFETY: not null, and of this size.
        let raw = unsafe { options.read_unaligned() };
        // SAFETY: as `ansatz.h` asks of the caller.
        let level = if raw.level.is_null() { None } else { Some(unsafe { words(raw.level, "level") }?) };
        // SAFETY: null or a number, as `ansatz.h` asks of the caller.
        let seed = if raw.seed.is_null() { None } else { Some(unsafe { raw.seed.read_unaligned() }) };
        let (total_steps, steps_per_epoch) = (raw.total_steps, raw.steps_per_epoch);
        let options = Options { threads: raw.threads, level, seed, total_steps, steps_per_epoch };
        // SAFETY: not null, of so many bytes, and written by `ansatz build`, as `ansatz.h` asks of the caller.
        unsafe { Run::create(std::slice::from_raw_parts(contents.cast(), length), &options) }
    };
    // SAFETY: null or a place that may be written.
    unsafe { give(run, std::ptr::null_mut()) };
    let (status, words) = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(made)) => {
            let inner = UnsafeCell::new(Inner { run: made, error: CString::default(), is_broken: false });
            // SAFETY: work has found that the place is not null.
            unsafe { give(run, Box::into_raw(Box::new(Handle { busy: AtomicBool::new(false), inner }))) };
            return OK;
        }
        Ok(Err(problem)) => (REFUSED, problem.to_string()),
        Err(panic) => (BROKEN, panic_words(&*panic)),
    };
    tell_thread(&words);
    status
}

/// See `ansatz.h`.
///
/// # Safety
/// The pointer is null or that of a run that is not destroyed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_destroy(run: *mut Handle) {
    if !run.is_null() {
        // SAFETY: made by `ansatz_create` out of a box, and not destroyed before.
        let handle = unsafe { Box::from_raw(run) };
        drop(catch_unwind(AssertUnwindSafe(|| drop(handle))));
    }
}

/// See `ansatz.h`.
///
/// # Safety
/// The pointer is null or that of a run that is not destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_error(run: *const Handle) -> *const c_char {
    let of_thread = || ERROR.with(|error| error.borrow().as_ptr());
    // SAFETY: null or a run that lives.
    let Some(handle) = (unsafe { run.as_ref() }) else { return of_thread() };
    if handle.busy.swap(true, Ordering::Acquire) {
        return of_thread();
    }
    // SAFETY: `busy` was false and is true now, so no other reference to the inner part exists until it is false again.
    let error = unsafe { &*handle.inner.get() }.error.clone();
    handle.busy.store(false, Ordering::Release);
    TOLD.with(|told| {
        *told.borrow_mut() = error;
        told.borrow().as_ptr()
    })
}

/// The table of this kind.
fn table(run: &Run, kind: c_int) -> Result<&[Entry], Problem> {
    let tables = run.tables();
    match kind {
        0 => Ok(&tables.fields),
        1 => Ok(&tables.outputs),
        2 => Ok(&tables.tensors),
        3 => Ok(&tables.metrics),
        other => Err(refused(&format!("there is no table {other}"))),
    }
}

/// See `ansatz.h`.
///
/// # Safety
/// As [`ansatz_error`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_count(run: *const Handle, kind: c_int) -> usize {
    let mut count = 0;
    let work = |run: &mut Run| {
        count = table(run, kind)?.len();
        Ok(())
    };
    // SAFETY: as this function's.
    unsafe { with(run, work) };
    count
}

/// See `ansatz.h`.
///
/// # Safety
/// As [`ansatz_error`], and `info` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_describe(run: *const Handle, kind: c_int, index: usize, info: *mut RawInfo) -> c_int {
    let work = |run: &mut Run| {
        let table = table(run, kind)?;
        let words = || refused(&format!("there is no entry {index} among {}", table.len()));
        let entry = table.get(index).ok_or_else(words)?;
        if info.is_null() {
            return Err(refused("the place of the description is NULL"));
        }
        let element = if kind == 3 { 2 } else { i32::from(entry.integer) };
        let (sizes, rank, elements) = (entry.sizes.as_ptr(), entry.sizes.len(), entry.elements());
        let (role, classes) = (entry.role, entry.classes);
        // SAFETY: not null, and may be written.
        unsafe { give(info, RawInfo { name: entry.name.as_ptr(), sizes, rank, elements, element, role, classes }) };
        Ok(())
    };
    // SAFETY: as this function's.
    unsafe { with(run, work) }
}

/// See `ansatz.h`.
///
/// # Safety
/// As [`ansatz_error`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_batch(run: *const Handle) -> usize {
    let mut batch = 0;
    let work = |run: &mut Run| {
        batch = run.batch();
        Ok(())
    };
    // SAFETY: as this function's.
    unsafe { with(run, work) };
    batch
}

/// See `ansatz.h`.
///
/// # Safety
/// As [`ansatz_error`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_position(run: *const Handle) -> u64 {
    let mut position = 0;
    let work = |run: &mut Run| {
        position = run.position();
        Ok(())
    };
    // SAFETY: as this function's.
    unsafe { with(run, work) };
    position
}

/// See `ansatz.h`.
///
/// # Safety
/// As [`ansatz_error`]; pointers are null or of as many elements or bytes as said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_step(
    run: *mut Handle,
    fields: *const RawInput,
    count: usize,
    rows: usize,
    loss: *mut f64,
    learning_rate: *mut f64,
) -> c_int {
    let work = |run: &mut Run| {
        // SAFETY: as this function's.
        let stepped = run.step(rows, &unsafe { inputs(fields, count) }?)?;
        // SAFETY: null, or may be written.
        unsafe {
            give(loss, stepped.loss);
            give(learning_rate, stepped.learning_rate);
        }
        Ok(())
    };
    // SAFETY: null, or may be written; a step that is refused leaves no number that looks like one.
    unsafe {
        give(loss, f64::NAN);
        give(learning_rate, f64::NAN);
        with(run, work)
    }
}

/// See `ansatz.h`.
///
/// # Safety
/// As [`ansatz_error`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_evaluate_begin(run: *mut Handle) -> c_int {
    // SAFETY: as this function's.
    unsafe { with(run, Run::evaluate_begin) }
}

/// See `ansatz.h`.
///
/// # Safety
/// As [`ansatz_step`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_evaluate_add(
    run: *mut Handle,
    fields: *const RawInput,
    count: usize,
    rows: usize,
) -> c_int {
    // SAFETY: as this function's.
    unsafe { with(run, |run| run.evaluate_add(rows, &inputs(fields, count)?)) }
}

/// See `ansatz.h`.
///
/// # Safety
/// As [`ansatz_error`]; `metrics` is null or of `count` numbers, `loss` and `samples` are null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_evaluate_finish(
    run: *mut Handle,
    loss: *mut f64,
    metrics: *mut f64,
    count: usize,
    samples: *mut u64,
) -> c_int {
    let work = |run: &mut Run| {
        let wanted: usize = run.tables().metrics.iter().map(Entry::elements).sum();
        if !metrics.is_null() && count != wanted {
            return Err(refused(&format!("the metrics have {wanted} numbers, and there is room for {count}")));
        }
        let figures = run.evaluate_finish()?;
        let values = figures.metrics.iter().flat_map(|metric| &metric.values);
        // SAFETY: each is null, or may be written; `metrics` has room for as many numbers as there are.
        unsafe {
            give(loss, figures.loss);
            give(samples, figures.samples);
            if !metrics.is_null() {
                values.take(count).enumerate().for_each(|(at, value)| give(metrics.add(at), *value));
            }
        }
        Ok(())
    };
    // SAFETY: as this function's.
    unsafe { with(run, work) }
}

/// See `ansatz.h`.
///
/// # Safety
/// As [`ansatz_step`]; buffers of outputs do not overlap one another or a field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_predict(
    run: *mut Handle,
    fields: *const RawInput,
    count: usize,
    rows: usize,
    outputs: *const RawOutput,
    output_count: usize,
) -> c_int {
    let work = |run: &mut Run| {
        if outputs.is_null() || output_count > MAX_COUNT {
            return Err(refused("the outputs are NULL, or more than there can be"));
        }
        // SAFETY: of so many elements, as this function's.
        let given = unsafe { std::slice::from_raw_parts(outputs, output_count) };
        let mut buffers = Vec::new();
        for output in given {
            buffers.push(match output.data.is_null() {
                true => None,
                false if isize::try_from(output.bytes).is_err() => {
                    return Err(refused("an output is larger than memory"));
                }
                // SAFETY: of so many bytes that nothing else overlaps, as this function's.
                false => Some(unsafe { std::slice::from_raw_parts_mut(output.data.cast::<u8>(), output.bytes) }),
            });
        }
        // SAFETY: as this function's.
        run.predict(rows, &unsafe { inputs(fields, count) }?, &mut buffers)
    };
    // SAFETY: as this function's.
    unsafe { with(run, work) }
}

/// See `ansatz.h`.
///
/// # Safety
/// As [`ansatz_error`]; `name` is null or a text, `data` is null or of so many bytes that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_get(run: *const Handle, name: *const c_char, data: *mut c_void, bytes: usize) -> c_int {
    let work = |run: &mut Run| {
        if data.is_null() || isize::try_from(bytes).is_err() {
            return Err(refused("the buffer is NULL or larger than memory"));
        }
        // SAFETY: as this function's.
        unsafe { run.get(words(name, "name")?, std::slice::from_raw_parts_mut(data.cast(), bytes)) }
    };
    // SAFETY: as this function's.
    unsafe { with(run, work) }
}

/// See `ansatz.h`.
///
/// # Safety
/// As [`ansatz_get`]; the data are read alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_set(run: *mut Handle, name: *const c_char, data: *const c_void, bytes: usize) -> c_int {
    let work = |run: &mut Run| {
        if data.is_null() || isize::try_from(bytes).is_err() {
            return Err(refused("the buffer is NULL or larger than memory"));
        }
        // SAFETY: as this function's.
        unsafe { run.set(words(name, "name")?, std::slice::from_raw_parts(data.cast(), bytes)) }
    };
    // SAFETY: as this function's.
    unsafe { with(run, work) }
}

fn kind_of(kind: c_int) -> Result<Kind, Problem> {
    match kind {
        0 => Ok(Kind::Weights),
        1 => Ok(Kind::Checkpoint),
        other => Err(refused(&format!("there is no kind {other} of file"))),
    }
}

/// See `ansatz.h`.
///
/// # Safety
/// As [`ansatz_error`]; `path` is null or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_save(run: *const Handle, path: *const c_char, kind: c_int) -> c_int {
    // SAFETY: as this function's.
    unsafe { with(run, |run| run.save(Path::new(words(path, "path")?), kind_of(kind)?)) }
}

/// See `ansatz.h`.
///
/// # Safety
/// As [`ansatz_save`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ansatz_load(run: *mut Handle, path: *const c_char, kind: c_int) -> c_int {
    // SAFETY: as this function's.
    unsafe { with(run, |run| run.load(Path::new(words(path, "path")?), kind_of(kind)?)) }
}
