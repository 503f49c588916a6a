//! What kernels take of a multiprocessor, as NVIDIA's assembler tells.
//!
//! Input: the compiler's log. Output: registers and spilled bytes of each function.

use super::run::function_name;

/// What a thread of a function takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// Registers of 32 bits.
    pub registers: u32,
    /// Bytes that did not fit into registers and are stored and loaded again.
    pub spilled_bytes: u32,
}

/// Of each function in order, where the log tells it of all.
pub fn usage(log: &str, functions: usize) -> Option<Vec<Usage>> {
    let mut found: Vec<Option<Usage>> = vec![None; functions];
    let mut current: Option<usize> = None;
    let number = |text: &str, unit: &str| {
        let before = text.split(unit).next()?;
        before.split_whitespace().last()?.parse::<u32>().ok()
    };
    let mut spilled = 0;
    for line in log.lines() {
        if let Some(rest) = line.split("entry function '").nth(1) {
            let name = rest.split('\'').next().unwrap_or_default();
            current = (0..functions).find(|number| function_name(*number) == name);
            spilled = 0;
        } else if line.contains("bytes spill stores") {
            let stores = number(line, " bytes spill stores").unwrap_or(0);
            let loads = number(line, " bytes spill loads").unwrap_or(0);
            spilled = stores + loads;
        } else if let (Some(function), Some(registers)) = (current, number(line, " registers")) {
            found[function] = Some(Usage { registers, spilled_bytes: spilled });
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assemblers_words_are_read() {
        let log = "ptxas info    : 0 bytes gmem\n\
                   ptxas info    : Compiling entry function 'k1' for 'sm_90'\n\
                   ptxas info    : Function properties for k1\n    \
                       16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads\n\
                   ptxas info    : Used 255 registers, used 1 barriers, 400 bytes smem\n\
                   ptxas info    : Compiling entry function 'k0' for 'sm_90'\n\
                   ptxas info    : Function properties for k0\n    \
                       0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
                   ptxas info    : Used 21 registers, used 0 barriers\n";
        let all = [Usage { registers: 21, spilled_bytes: 0 }, Usage { registers: 255, spilled_bytes: 20 }];
        assert_eq!(usage(log, 2), Some(all.to_vec()));
        assert_eq!(usage(log, 3), None);
    }
}
