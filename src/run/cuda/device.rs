//! A GPU as a device: an arena, and the programs loaded so far, each recorded once and then replayed as a whole.
//!
//! Input: programs, where their code comes from, and tensors. Output: results in the GPU's memory. Invariant: as
//! [`crate::device`]'s; on one architecture the same bits from run to run.
//!
//! What differs from step to step goes through pinned memory: inputs and the host's numbers are collected there and sent
//! in one piece where they are neighbours, results come back in one piece behind the step.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use super::code::{Action, Arch, Code, Launch, function_name};
use super::driver::{Callable, Clock, Context, Graph, Host, Memory, Module};
use crate::device::{Device, DeviceError, Loaded, StepInput};
use crate::graph::DType;
use crate::kernel::{Buffer, Program, Role};

/// Where the code of a program for an architecture comes from: a compiler, or a file.
pub type Compile = Box<dyn Fn(&Program, Arch) -> Result<Code, DeviceError>>;

/// Bytes of `Run` in the kernels' prelude: seed, step, and whether something lasting is not finite.
const RUN_BYTES: usize = 24;
/// Where the last lies.
const SUSPECT: Range<usize> = 16..20;
/// Results of more bytes are read when somebody asks for them.
const MOST_RESULTS: usize = 1 << 20;

/// A program that is loaded.
struct Step {
    actions: Vec<Action>,
    functions: Vec<Callable>,
    module: Module,
    /// The bytes of the arena that hold results, in whole or none.
    results: Range<usize>,
    /// The recorded step for the arena at an address.
    graph: Option<(u64, Graph)>,
    /// Nanoseconds of each kernel of the program, where they are measured; actions leave out kernels of none.
    times: Vec<u64>,
}

/// See the module's text.
pub struct Gpu {
    steps: Vec<Step>,
    arena: Memory,
    run: Memory,
    /// The host's side of `run`.
    run_host: Host,
    /// The host's side of the arena's bytes from `exchange` on: inputs, numbers, results.
    mirror: Host,
    exchange: Option<usize>,
    /// Ranges of the arena that `mirror` holds and the GPU does not yet.
    unsent: Vec<Range<usize>>,
    /// The range of the arena of which `mirror` holds the results of the last step.
    received: Range<usize>,
    profile: bool,
    /// A failure of the GPU, after which it holds nothing.
    lost: Cell<bool>,
    compile: Compile,
    context: Rc<Context>,
}

/// The codes of a file, for the programs that they were made for.
pub fn found_in(codes: Vec<Code>) -> Compile {
    Box::new(move |program, _| {
        let wanted = program.fingerprint();
        let code = codes.iter().find(|code| code.program == wanted).cloned();
        code.ok_or_else(|| DeviceError("no GPU code for this step is at hand".into()))
    })
}

impl Gpu {
    /// The first GPU, without memory yet; with `profile` it measures each kernel.
    ///
    /// # Errors
    /// Why there is none, and the way out.
    ///
    /// # Safety
    /// Programs are those of the compiler, read back at most, and `compile` gives what it made for them.
    pub unsafe fn new(profile: bool, compile: Compile) -> Result<Gpu, DeviceError> {
        let context = Context::new()?;
        Ok(Gpu {
            steps: Vec::new(),
            arena: Memory::zeros(&context, 0)?,
            run: Memory::zeros(&context, RUN_BYTES)?,
            run_host: Host::zeros(&context, RUN_BYTES)?,
            mirror: Host::zeros(&context, 0)?,
            exchange: None,
            unsent: Vec::new(),
            received: 0..0,
            profile,
            lost: Cell::new(false),
            compile,
            context,
        })
    }

    /// The architecture that code is made for.
    pub fn arch(&self) -> Arch {
        self.context.found.arch
    }

    /// Does a thing of which a failure means that nothing is left.
    fn whole<T>(&self, done: Result<T, DeviceError>) -> Result<T, DeviceError> {
        done.inspect_err(|_| self.lost.set(true))
    }

    /// # Errors
    /// The GPU has failed before.
    fn alive(&self) -> Result<(), DeviceError> {
        if self.lost.get() { Err(DeviceError("the GPU has failed; what it held is lost".into())) } else { Ok(()) }
    }

    /// Makes the arena longer; what it holds stays.
    fn grow(&mut self, bytes: usize) -> Result<(), DeviceError> {
        if bytes <= self.arena.bytes {
            return Ok(());
        }
        let arena = Memory::zeros(&self.context, bytes)?;
        if self.arena.bytes > 0 {
            arena.copy(0, &self.arena, 0, self.arena.bytes)?;
        }
        self.context.finish()?;
        self.arena = arena;
        self.steps.iter_mut().for_each(|step| step.graph = None);
        Ok(())
    }

    /// Room in the mirror for what a program exchanges with the host.
    fn grow_mirror(&mut self, program: &Program) -> Result<(), DeviceError> {
        let exchanged = program
            .buffers
            .iter()
            .filter(|buffer| matches!(buffer.role, Role::Input(_) | Role::Scalar(_) | Role::Output(_)))
            .map(|buffer| buffer.offset..buffer.offset + buffer.bytes());
        let (mut start, mut end) = (usize::MAX, 0);
        exchanged.for_each(|range| (start, end) = (start.min(range.start), end.max(range.end)));
        if start >= end {
            return Ok(());
        }
        // What is unsent lies in the old mirror.
        self.send()?;
        self.context.finish()?;
        let first = self.exchange.map_or(start, |exchange| exchange.min(start));
        let known = self.exchange.map_or(0, |exchange| exchange + self.mirror.bytes().len());
        if self.exchange != Some(first) || known < end {
            self.received = 0..0;
            self.mirror = Host::zeros(&self.context, known.max(end) - first)?;
            self.exchange = Some(first);
        }
        Ok(())
    }

    /// Sends what has been collected.
    fn send(&mut self) -> Result<(), DeviceError> {
        let first = self.exchange.unwrap_or(0);
        for range in std::mem::take(&mut self.unsent) {
            self.arena.send(range.start, &self.mirror, range.start - first..range.end - first)?;
        }
        Ok(())
    }

    /// The mirror's bytes of a buffer that steps take from the host.
    fn mirrored(&mut self, buffer: &Buffer) -> Option<&mut [u8]> {
        let first = self.exchange?;
        let range = buffer.offset..buffer.offset + buffer.bytes();
        let is_taken = matches!(buffer.role, Role::Input(_) | Role::Scalar(_));
        if !is_taken || range.start < first || range.end > first + self.mirror.bytes().len() {
            return None;
        }
        // Buffers begin at multiples of 64: the gap to a neighbour holds nothing.
        let is_known = self.unsent.iter().any(|known| known.start <= range.start && range.end <= known.end);
        match self.unsent.last_mut() {
            _ if is_known => {}
            Some(last) if last.end.next_multiple_of(64) == range.start => last.end = range.end,
            _ => self.unsent.push(range.clone()),
        }
        Some(&mut self.mirror.bytes_mut()[range.start - first..range.end - first])
    }

    fn write(&mut self, buffer: &Buffer, bytes: &[u8]) -> Result<(), DeviceError> {
        self.alive()?;
        assert_eq!(bytes.len(), buffer.bytes(), "bytes of {}", buffer.role);
        if let Some(mirrored) = self.mirrored(buffer) {
            mirrored.copy_from_slice(bytes);
            return Ok(());
        }
        self.whole(self.arena.write(buffer.offset, bytes))
    }

    fn read(&self, buffer: &Buffer) -> Result<Cow<'_, [u8]>, DeviceError> {
        self.alive()?;
        let range = buffer.offset..buffer.offset + buffer.bytes();
        let holds = |known: &Range<usize>| known.start <= range.start && range.end <= known.end;
        if let Some(first) = self.exchange
            && (holds(&self.received) || self.unsent.iter().any(holds))
        {
            return Ok(self.mirror.bytes()[range.start - first..range.end - first].into());
        }
        let mut bytes = vec![0; buffer.bytes()];
        self.whole(self.arena.read(buffer.offset, &mut bytes))?;
        Ok(bytes.into())
    }

    /// Asks the GPU for all actions of a step, in order.
    fn ask(&self, step: &Step, clock: Option<&Clock>) -> Result<(), DeviceError> {
        for (number, action) in step.actions.iter().enumerate() {
            clock.map_or(Ok(()), |clock| clock.note(number))?;
            match action {
                Action::Launch(launch) => self.launch(step, launch)?,
                Action::Zero { offset, bytes } => self.arena.zero(*offset, *bytes)?,
                Action::Copy { from, to, bytes } => self.arena.copy(*to, &self.arena, *from, *bytes)?,
            }
        }
        clock.map_or(Ok(()), |clock| clock.note(step.actions.len()))
    }

    fn launch(&self, step: &Step, launch: &Launch) -> Result<(), DeviceError> {
        let buffers = launch.buffers.iter().map(|offset| self.arena.address + *offset as u64);
        let mut pointers: Vec<u64> = std::iter::once(self.run.address).chain(buffers).collect();
        let Launch { function, blocks, threads, shared_bytes, .. } = *launch;
        // SAFETY: the image is this program's, by the word of whoever made the device, so the function takes these
        // pointers and stays within the program's buffers, which lie in the arena: `load` has made it long enough.
        unsafe { step.module.launch(step.functions[function], [blocks, threads, shared_bytes], &mut pointers) }
    }

    /// One step, without what it takes and gives.
    fn replay(&mut self, number: usize) -> Result<(), DeviceError> {
        if self.profile {
            let step = &self.steps[number];
            let clock = Clock::new(&self.context, step.actions.len() + 1)?;
            self.ask(step, Some(&clock))?;
            self.context.finish()?;
            let times = clock.nanoseconds()?;
            let sums = &mut self.steps[number].times;
            sums.resize(times.len(), 0);
            sums.iter_mut().zip(times).for_each(|(sum, time)| *sum += time);
            return Ok(());
        }
        let step = &self.steps[number];
        if step.graph.as_ref().is_none_or(|(address, _)| *address != self.arena.address) {
            let graph = self.context.record(|| self.ask(step, None))?;
            self.steps[number].graph = Some((self.arena.address, graph));
        }
        self.steps[number].graph.as_ref().map_or(Ok(()), |(_, graph)| graph.launch())
    }

    fn run_whole(&mut self, number: usize, input: StepInput) -> Result<bool, DeviceError> {
        self.received = 0..0;
        self.send()?;
        let host = self.run_host.bytes_mut();
        host.fill(0);
        host[..8].copy_from_slice(&input.seed.to_le_bytes());
        host[8..16].copy_from_slice(&input.step.to_le_bytes());
        self.run.send(0, &self.run_host, 0..RUN_BYTES)?;
        self.replay(number)?;
        self.run.receive(SUSPECT.start, &mut self.run_host, SUSPECT)?;
        let results = self.steps[number].results.clone();
        if let Some(first) = self.exchange.filter(|_| !results.is_empty()) {
            let range = results.start - first..results.end - first;
            self.arena.receive(results.start, &mut self.mirror, range)?;
        }
        self.context.finish()?;
        self.received = results;
        Ok(self.run_host.bytes()[SUSPECT].iter().any(|byte| *byte != 0))
    }
}

/// Where the results of a program lie, if that is little; those that neither begin nor end there lie between.
fn results(program: &Program) -> Range<usize> {
    let outputs = program.buffers.iter().filter(|buffer| matches!(buffer.role, Role::Output(_)));
    let ranges = outputs.map(|buffer| buffer.offset..buffer.offset + buffer.bytes());
    let whole = ranges.reduce(|all, each| all.start.min(each.start)..all.end.max(each.end)).unwrap_or(0..0);
    if whole.len() <= MOST_RESULTS { whole } else { 0..0 }
}

fn bytes_of<T: Copy>(values: &[T]) -> &[u8] {
    // SAFETY: numbers of four bytes have no other bytes between them, and any bytes are bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

impl Device for Gpu {
    fn level(&self) -> String {
        format!("cuda {}", self.arch())
    }

    fn bytes(&self) -> u64 {
        self.arena.bytes as u64
    }

    fn bytes_for(&self, program: &Program) -> u64 {
        program.arena_bytes as u64
    }

    fn room(&self) -> Option<u64> {
        self.context.free_bytes()
    }

    fn load(&mut self, program: &Program) -> Result<Loaded, DeviceError> {
        self.alive()?;
        let code = (self.compile)(program, self.arch())?;
        if code.form != Code::FORM || code.program != program.fingerprint() {
            return Err(DeviceError(format!(
                "the GPU code is of {}, not of {}, or another step's",
                code.form,
                Code::FORM
            )));
        }
        let arch = self.arch();
        let image = code.image(arch);
        let image = image.ok_or_else(|| DeviceError(format!("no GPU code for {arch} is at hand")))?;
        // SAFETY: by the word of whoever made the device.
        let module = unsafe { Module::load(&self.context, &image.bytes) }?;
        let functions = (0..code.functions).map(|number| module.function(&function_name(number)));
        let functions = functions.collect::<Result<Vec<_>, _>>()?;
        // A launch names what there is.
        let fits = |action: &Action| match action {
            Action::Launch(launch) => {
                launch.function < functions.len() && launch.buffers.iter().all(|offset| *offset < program.arena_bytes)
            }
            Action::Zero { offset, bytes } => offset + bytes <= program.arena_bytes,
            Action::Copy { from, to, bytes } => from.max(to) + bytes <= program.arena_bytes,
        };
        if !code.actions.iter().all(fits) {
            return Err(DeviceError("the GPU code is not this program's".into()));
        }
        self.grow(program.arena_bytes)?;
        self.grow_mirror(program)?;
        self.steps.push(Step {
            actions: code.actions,
            functions,
            module,
            results: results(program),
            graph: None,
            times: Vec::new(),
        });
        Ok(Loaded(self.steps.len() - 1))
    }

    fn run(&mut self, step: Loaded, input: StepInput) -> Result<bool, DeviceError> {
        self.alive()?;
        let done = self.run_whole(step.0, input);
        self.whole(done)
    }

    fn profile(&self, step: Loaded) -> Vec<u64> {
        self.steps[step.0].times.clone()
    }

    fn read_f32(&self, buffer: &Buffer) -> Result<Cow<'_, [f32]>, DeviceError> {
        let bytes = self.read(buffer)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|element| f32::from_le_bytes(*element)).collect())
    }

    fn read_bytes(&self, buffer: &Buffer) -> Result<Cow<'_, [u8]>, DeviceError> {
        self.read(buffer)
    }

    fn write_f32(&mut self, buffer: &Buffer, values: &[f32]) -> Result<(), DeviceError> {
        self.write(buffer, bytes_of(values))
    }

    fn write_i32(&mut self, buffer: &Buffer, values: &[i32]) -> Result<(), DeviceError> {
        self.write(buffer, bytes_of(values))
    }

    fn write_bytes(&mut self, buffer: &Buffer, bytes: &[u8]) -> Result<(), DeviceError> {
        self.write(buffer, bytes)
    }

    fn write_with(&mut self, buffer: &Buffer, write: &mut dyn FnMut(&mut [f32])) -> Result<(), DeviceError> {
        let mut values = vec![0.0; buffer.elements()];
        write(&mut values);
        self.write_f32(buffer, &values)
    }

    fn fill(&mut self, buffer: &Buffer, value: f64) -> Result<(), DeviceError> {
        let count = buffer.elements();
        match buffer.dtype {
            _ if value == 0.0 => self.write_bytes(buffer, &vec![0; buffer.bytes()]),
            DType::F32 => self.write_f32(buffer, &vec![value as f32; count]),
            DType::I32 => self.write_i32(buffer, &vec![value as i32; count]),
            DType::Bool => self.write_bytes(buffer, &vec![1; count]),
        }
    }
}
