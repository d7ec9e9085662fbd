//! The page as one self-contained HTML file.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, context};

use super::Page;
use crate::ReportError;

const TEMPLATE: &str = include_str!("../../templates/report.html");
const STYLE: &str = include_str!("../../templates/report.css");

/// HTML that needs nothing from outside. Text is escaped by the template engine; only our own drawings and style go in as they are.
pub fn html(page: &Page) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("report.html", TEMPLATE)?;
    Ok(environment.get_template("report.html")?.render(context! { page => Serde(page), style => STYLE })?)
}
