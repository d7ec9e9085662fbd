//! Reports: from the results database to frames, statistics, plots and pages.
//!
//! [`write()`] answers what an experiment asks: which network is better, by how much, and whether the difference is real. It
//! chooses a configuration of each network by validation accuracy, quotes the test part for these only, and says how sure one
//! can be. [`export_table`] writes the rows of any query.
//!
//! The only crate that knows polars: frames are aggregated lazily ([`write()`] leaves them beside the page as CSV and Parquet).
//! The statistics are pure functions, judged against scipy and statsmodels.

mod analysis;
mod answer;
mod error;
mod evidence;
pub mod export;
mod folder;
mod frames;
mod front;
mod importance;
mod mistakes;
mod naming;
mod page;
mod picture;
mod plots;
mod report;
mod source;
pub mod statistics;
pub mod study;
mod text;

pub use error::ReportError;
pub use evidence::{Evidence, Examination, Filters, Nothing, Truth};
pub use export::{Cell, Format, export_table, write_table};
pub use picture::Picture;
pub use report::{Written, write, write_study, write_with};
pub use text::{shorten, visible};
