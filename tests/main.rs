//! The program as people use it: what is typed, what is printed, what is in the files afterwards.

mod workplace;

mod answers;
mod bits;
mod evaluation;
mod failures;
mod house;
mod networks;
mod preparing;
mod public;
mod real;
mod refusals;
mod resume;
mod sharing;
mod shell;
mod sweeps;
