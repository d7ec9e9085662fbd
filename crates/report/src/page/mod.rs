//! The page: sections of text, tables and plots, which HTML, Markdown and the terminal each write in their own way.

mod html;
mod markdown;
mod sections;

use serde::Serialize;

pub use html::html;
pub use markdown::markdown;
pub use sections::{page, summary};

/// A whole report.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Page {
    /// Names of the experiments.
    pub title: String,
    /// What the experiments ask.
    pub questions: Vec<String>,
    /// The answer, a sentence each.
    pub answer: Vec<String>,
    /// What the reader must know beside it.
    pub notes: Vec<String>,
    /// The body.
    pub sections: Vec<Section>,
}

/// One section.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Section {
    /// Anchor: letters and dashes.
    pub id: String,
    /// Heading.
    pub title: String,
    /// Text above the tables.
    pub paragraphs: Vec<String>,
    /// Tables.
    pub tables: Vec<Table>,
    /// Plots.
    pub plots: Vec<Picture>,
    /// Commands to type.
    pub commands: Vec<String>,
}

/// A table of text.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Table {
    /// Heading above it; may be empty.
    pub title: String,
    /// Column names.
    pub header: Vec<String>,
    /// Rows.
    pub rows: Vec<Vec<String>>,
    /// Which columns hold numbers.
    pub right: Vec<bool>,
    /// Text below it; may be empty.
    pub note: String,
}

/// A plot on the page.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Picture {
    /// File name without its ending.
    pub name: String,
    /// Title.
    pub title: String,
    /// What it shows.
    pub caption: String,
    /// The picture itself.
    pub svg: String,
}
