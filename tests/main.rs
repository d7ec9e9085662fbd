//! The program as people use it: what is typed, what is printed, what is in the files afterwards.

mod workplace;

mod answers;
mod bits;
mod documents;
mod evaluation;
mod failures;
mod gpu;
mod hostile;
mod house;
mod managing;
mod merging;
mod networks;
mod preparing;
mod public;
mod queries;
mod real;
mod records;
mod refusals;
mod resume;
mod searches;
mod serving;
mod sharing;
mod shell;
mod sweeps;
mod verifying;
