//! Pages about runs, for people: one self-contained HTML file for a run, and one for several side by side.
//!
//! Input: run folders. Output: HTML without scripts that asks nothing of a network, and a table as text. Invariants: every text
//! of a user's is escaped where it enters the page; a picture has the same cost for a run of any length.
//!
//! 1. `html`: escaping, numbers, the frame of a page.
//! 2. `run`: what a run folder holds, read.
//! 3. `chart`: lines over axes. 4. `picture`: the model as boxes.
//! 5. `page`: the report of one run. 6. `comparison`: several runs.

mod chart;
pub mod comparison;
mod html;
pub mod page;
mod picture;
pub mod run;

pub use run::Run;
