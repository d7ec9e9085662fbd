//! The page as Markdown beside its pictures.

use super::{Page, Table};
use crate::text::{markdown as escape, markdown_code};

/// Markdown (with tables, as GitHub and Pandoc read it); pictures are looked for in `plots/`.
pub fn markdown(page: &Page) -> String {
    let mut out = format!("# {}\n\n", escape(&page.title));
    for question in &page.questions {
        out.push_str(&format!("> {}\n\n", escape(question)));
    }
    out.push_str(&format!("**{}**\n\n", page.answer.iter().map(|s| escape(s)).collect::<Vec<_>>().join(" ")));
    for note in &page.notes {
        out.push_str(&format!("- {}\n", escape(note)));
    }
    if !page.notes.is_empty() {
        out.push('\n');
    }
    for section in &page.sections {
        out.push_str(&format!("## {}\n\n", escape(&section.title)));
        for paragraph in &section.paragraphs {
            out.push_str(&format!("{}\n\n", escape(paragraph)));
        }
        for command in &section.commands {
            out.push_str(&format!("- {}\n", markdown_code(command)));
        }
        if !section.commands.is_empty() {
            out.push('\n');
        }
        for table in &section.tables {
            out.push_str(&table_text(table));
        }
        for plot in &section.plots {
            out.push_str(&format!(
                "![{}](plots/{}.svg)\n\n{}\n\n",
                escape(&plot.title),
                plot.name,
                escape(&plot.caption)
            ));
        }
    }
    while out.ends_with("\n\n") {
        out.pop();
    }
    out
}

fn table_text(table: &Table) -> String {
    let mut out = String::new();
    if !table.title.is_empty() {
        out.push_str(&format!("**{}**\n\n", escape(&table.title)));
    }
    let mut line = |cells: Vec<String>| out.push_str(&format!("| {} |\n", cells.join(" | ")));
    line(table.header.iter().map(|cell| escape(cell)).collect());
    let aligned = |index: usize| table.right.get(index).copied().unwrap_or(false);
    line((0..table.header.len()).map(|index| if aligned(index) { "---:" } else { "---" }.to_owned()).collect());
    for row in &table.rows {
        line(row.iter().map(|cell| escape(cell)).collect());
    }
    out.push('\n');
    if !table.note.is_empty() {
        out.push_str(&format!("{}\n\n", escape(&table.note)));
    }
    out
}
