//! What is shown under which path.

use std::collections::HashMap;

use store::{EXPERIMENT_COLUMNS, ExperimentId, Listing, Order, RUN_COLUMNS, RunId, StoreError, Table, Value, named};

use super::{
    Response, Site,
    curves::{Curve, color, svg},
    reports::Shown,
};
use crate::commands::show::flattened;

/// Curves in one picture: more cannot be told apart, and take long to draw.
const CURVES: usize = 60;
/// Rows of a list on one page: as many as a browser lays out in a moment.
const ROWS: u32 = 200;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");

/// Text as it may stand anywhere in a page: as text.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in report::visible(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Which rows of a list are shown.
#[derive(Clone, Copy)]
struct View<'a> {
    /// From 1.
    page: u32,
    order: Option<Order<'a>>,
}

impl<'a> View<'a> {
    /// What the words of a query ask for. `None` where they make no sense.
    fn asked(query: &'a str) -> Option<Self> {
        let word = |key: &str| query.split('&').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let page = word("page").map_or(Some(1), |text| text.parse().ok());
        let page = page.filter(|page| (1..=u32::MAX / ROWS).contains(page))?;
        let descending = match word("order") {
            None | Some("ascending") => false,
            Some("descending") => true,
            Some(_) => return None,
        };
        Some(Self { page, order: word("sort").map(|column| Order { column, descending }) })
    }

    /// A link to rows of the same page of the site. It ends at the column that sorts them, so that who sorts stays where they are.
    fn link(self) -> String {
        let page = if self.page > 1 { format!("page={}", self.page) } else { String::new() };
        match self.order {
            None => format!("?page={}", self.page),
            Some(Order { column, descending }) => {
                let way = if descending { "descending" } else { "ascending" };
                let and = if page.is_empty() { "" } else { "&amp;" };
                format!("?{page}{and}sort={column}&amp;order={way}#sort-{column}")
            }
        }
    }

    /// What [`paged`] wants to see of a page.
    fn listing(self, experiment: Option<i64>) -> Listing<'a> {
        let experiment = experiment.map(ExperimentId);
        Listing {
            experiment,
            limit: Some(ROWS + 1),
            skip: (self.page - 1) * ROWS,
            order: self.order,
            ..Listing::default()
        }
    }
}

/// How the heads of a table sort it: what is shown, and how the rows are sorted unless asked.
type Sorting<'a> = Option<(View<'a>, Order<'a>)>;

/// The head of a column, with a link that sorts by it: numbers and times the greatest first, the other way at the second time.
fn head(name: &str, is_number: bool, sorting: Sorting<'_>) -> String {
    let class = if is_number { " class=\"number\"" } else { "" };
    let shown = escaped(name);
    let Some((view, usual)) = sorting else { return format!("<th{class}>{shown}</th>") };
    let now = view.order.unwrap_or(usual);
    let is_sorted = now.column == name;
    let descending = if is_sorted { !now.descending } else { is_number || name.ends_with("_utc") };
    let to = View { page: 1, order: Some(Order { column: name, descending }) }.link();
    let (state, arrow) = match (is_sorted, now.descending) {
        (false, _) => ("", ""),
        (true, false) => (" aria-sort=\"ascending\"", " ▲"),
        (true, true) => (" aria-sort=\"descending\"", " ▼"),
    };
    let arrow = if arrow.is_empty() { String::new() } else { format!("<span aria-hidden=\"true\">{arrow}</span>") };
    format!("<th{class}{state}><a id=\"sort-{shown}\" href=\"{to}\">{shown}{arrow}</a></th>")
}

/// Answers a path. In the query `page=2` asks for further rows, `sort=COLUMN` and `order=descending` for their order, `part` for what
/// changes alone.
pub fn answer(site: &Site, path: &str, query: &str) -> Response {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let number = |text: &str| text.parse::<i64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let is_part = query.split('&').any(|word| word == "part");
    let Some(view) = View::asked(query) else { return Response::text(404, "there is no such page") };
    let columns: &[&str] = match parts[..] {
        [""] => &EXPERIMENT_COLUMNS,
        ["experiment", _] => &RUN_COLUMNS,
        _ => &[],
    };
    if view.order.is_some_and(|order| !columns.contains(&order.column)) {
        return Response::text(404, "there is no such column to sort by");
    }
    let content = match parts[..] {
        [""] => home(site, view),
        ["style.css"] => return Response::file("text/css; charset=utf-8", STYLE),
        ["live.js"] => return Response::file("text/javascript; charset=utf-8", SCRIPT),
        ["experiment", id] => number(id).map_or(Ok(None), |id| experiment(site, id, view)),
        ["experiment", id, "report"] => {
            let name = number(id).map_or(Ok(None), |id| Ok(name_of(site, id)?.map(|name| (id, name))));
            return match name {
                Ok(Some((id, name))) => report(site, id, &name),
                Ok(None) => Response::text(404, "there is nothing here"),
                Err(error) => failed(&error),
            };
        }
        ["run", id] => number(id).map_or(Ok(None), |id| run(site, id, view)),
        _ => Ok(None),
    };
    match content {
        Ok(Some((_, body))) if is_part => Response::page(200, body),
        Ok(Some((title, body))) => Response::page(200, whole(&title, &body)),
        Ok(None) => Response::text(404, "there is nothing here"),
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> Response {
    Response::text(500, &error.to_string())
}

/// The experiment's report, or a page that says that it is being made.
fn report(site: &Site, id: i64, name: &str) -> Response {
    match site.reports.of(id, name, &site.store, (&site.scratch, &site.global)) {
        Ok(Shown { page: Some(page), again_s }) => Response::report(page, again_s),
        Ok(Shown { page: None, .. }) => {
            let body = format!("<h1>{}</h1><p class=\"none\">The report is being made …</p>", escaped(name));
            Response::wait(framed("Report", &body, ""))
        }
        Err(error) => failed(&error),
    }
}

fn whole(title: &str, body: &str) -> String {
    framed(title, body, "<script src=\"/live.js\" defer></script>")
}

fn framed(title: &str, body: &str, script: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{}</title><link rel=\"icon\" href=\"data:,\"><link rel=\"stylesheet\" href=\"/style.css\">{script}</head>\
         <body><nav><a href=\"/\">pipeline</a><span id=\"live\" role=\"status\"></span></nav><main>{body}</main></body></html>",
        escaped(title)
    )
}

/// Takes off the row that only tells that there are more, and says which rows these are, with ways to the others.
fn paged(rows: &mut Table, view: View<'_>) -> String {
    let page = view.page;
    let is_last = rows.rows.len() <= ROWS as usize;
    rows.rows.truncate(ROWS as usize);
    if is_last && page == 1 {
        return String::new();
    }
    let first = u64::from(page - 1) * u64::from(ROWS) + 1;
    let mut out = match rows.rows.len() {
        0 => "<p class=\"pages\">no rows".to_owned(),
        count => format!("<p class=\"pages\">rows {first} to {}", first + count as u64 - 1),
    };
    let (before, after) = if view.order.is_some() { ("before", "after") } else { ("newer", "older") };
    let to = |page| View { page, ..view }.link();
    if page > 1 {
        out.push_str(&format!(" <a href=\"{}\" rel=\"prev\">{before}</a>", to(page - 1)));
    }
    if !is_last {
        out.push_str(&format!(" <a href=\"{}\" rel=\"next\">{after}</a>", to(page + 1)));
    }
    out.push_str("</p>");
    out
}

/// Rows as a table; `link` gives where a cell leads. The first rows have the colours of as many curves, which are drawn from the
/// last of them to the first. With `sorting` the heads sort.
fn table(
    rows: &Table,
    skip: &[&str],
    link: &dyn Fn(&str, &[Value]) -> Option<String>,
    curves: usize,
    sorting: Sorting<'_>,
) -> String {
    if rows.rows.is_empty() {
        return "<p class=\"none\">nothing yet</p>".to_owned();
    }
    let shown: Vec<usize> =
        (0..rows.columns.len()).filter(|&index| !skip.contains(&rows.columns[index].name.as_str())).collect();
    let mut out = String::from("<div class=\"wide\"><table><thead><tr>");
    for &index in &shown {
        let is_number = |row: &Vec<Value>| matches!(row[index], Value::Integer(_) | Value::Real(_));
        out.push_str(&head(&rows.columns[index].name, rows.rows.iter().any(is_number), sorting));
    }
    out.push_str("</tr></thead><tbody>");
    for (place, row) in rows.rows.iter().enumerate() {
        out.push_str("<tr>");
        for &index in &shown {
            let name = &rows.columns[index].name;
            let (class, text) = match &row[index] {
                Value::Null => ("", String::new()),
                Value::Integer(number) => ("number", number.to_string()),
                Value::Real(number) if *number != 0.0 && number.abs() < 0.001 => ("number", format!("{number:.3e}")),
                Value::Real(number) => ("number", format!("{number:.5}")),
                Value::Text(text) if name == "status" => (text.as_str(), text.clone()),
                other => ("", other.to_string()),
            };
            let text = escaped(&text);
            let swatch = match curves.checked_sub(place + 1) {
                Some(curve) if Some(&index) == shown.first() => format!("<i class=\"swatch {}\"></i>", color(curve)),
                _ => String::new(),
            };
            let text = link(name, row).map_or_else(|| text.clone(), |to| format!("<a href=\"{to}\">{text}</a>"));
            out.push_str(&format!("<td class=\"{}\">{swatch}{text}</td>", escaped(class)));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

type Content = anyhow::Result<Option<(String, String)>>;

fn home(site: &Site, view: View<'_>) -> Content {
    let mut listed = site.store.list_experiments(&view.listing(None))?;
    let pages = paged(&mut listed, view);
    let known = site.store.experiments()?;
    let link = |column: &str, row: &[Value]| {
        let name = row[0].to_string();
        let found = known.iter().find(|experiment| column == "experiment" && experiment.name == name)?;
        Some(format!("/experiment/{}", found.id))
    };
    let sorting = Some((view, Order { column: "planned_utc", descending: true }));
    let body = format!("<h1>Experiments</h1>{}{pages}", table(&listed, &["archived"], &link, 0, sorting));
    Ok(Some(("Experiments".to_owned(), body)))
}

fn name_of(site: &Site, id: i64) -> anyhow::Result<Option<String>> {
    let found = site.store.experiments()?.into_iter().find(|experiment| experiment.id.0 == id);
    Ok(found.map(|experiment| experiment.name))
}

fn experiment(site: &Site, id: i64, view: View<'_>) -> Content {
    let Some(found) = site.store.experiments()?.into_iter().find(|experiment| experiment.id.0 == id) else {
        return Ok(None);
    };
    let mut runs = site.store.list_runs(&view.listing(Some(id)))?;
    let pages = paged(&mut runs, view);
    let numbers: Vec<(i64, String)> = runs
        .rows
        .iter()
        .filter_map(|row| if let Value::Integer(run) = row[0] { Some((run, row[2].to_string())) } else { None })
        .take(CURVES)
        .collect();
    let mut body = format!(
        "<h1>{}</h1><p class=\"question\">{}</p><p>{} of {} trials done, {} pruned, {} failed. <a href=\"/experiment/{id}/report\">Report</a></p>",
        escaped(&found.name),
        escaped(&found.question),
        found.done,
        found.trials,
        found.pruned,
        found.failed
    );
    for ((_, title, unit), curves) in MEASURES.iter().zip(curves(site, &numbers)?) {
        body.push_str(&svg(title, unit, &curves));
    }
    if runs.rows.len() > numbers.len() {
        body.push_str(&format!("<p class=\"none\">curves of the first {CURVES} of these runs</p>"));
    }
    let link = |column: &str, row: &[Value]| (column == "run").then(|| format!("/run/{}", row[0]));
    body.push_str("<h2>Runs</h2>");
    let sorting = Some((view, Order { column: "run", descending: true }));
    body.push_str(&table(&runs, &["experiment", "archived"], &link, numbers.len(), sorting));
    body.push_str(&pages);
    Ok(Some((found.name, body)))
}

/// Columns of epochs that are drawn, with their titles and units.
const MEASURES: [(&str, &str, &str); 2] =
    [("validation_top1", "validation accuracy", "fraction"), ("train_loss", "training loss", "nats per image")];

/// The curves of some runs, for each measure; the last run first, as the first of the table is drawn last, above the others.
fn curves(site: &Site, runs: &[(i64, String)]) -> anyhow::Result<[Vec<Curve>; MEASURES.len()]> {
    let numbers = serde_json::json!(runs.iter().map(|(run, _)| run).collect::<Vec<_>>()).to_string();
    // The columns are ours.
    let columns = MEASURES.map(|(column, ..)| column).join(", ");
    let sql = format!(
        "SELECT run_id, epoch, {columns} FROM epochs WHERE run_id IN (SELECT value FROM json_each(?1)) ORDER BY run_id, epoch"
    );
    let rows = site.store.query(&sql, &[Value::Text(numbers)])?.rows;
    let named = || -> Vec<Curve> {
        let curve = |(run, label): &(i64, String)| Curve { name: format!("run {run}: {label}"), points: Vec::new() };
        runs.iter().rev().map(curve).collect()
    };
    let mut all = MEASURES.map(|_| named());
    let places: HashMap<i64, usize> = runs.iter().rev().enumerate().map(|(place, (run, _))| (*run, place)).collect();
    for row in rows {
        let (Value::Integer(run), Value::Integer(epoch)) = (&row[0], &row[1]) else { continue };
        let Some(&place) = places.get(run) else { continue };
        for (curves, value) in all.iter_mut().zip(&row[2..]) {
            if let Value::Real(value) = value {
                curves[place].points.push((*epoch as f64, *value));
            }
        }
    }
    Ok(all)
}

fn run(site: &Site, id: i64, view: View<'_>) -> Content {
    let described = match site.store.describe_run(RunId(id)) {
        Ok(described) => described,
        Err(StoreError::UnknownRun { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let no_link = |_: &str, _: &[Value]| None;
    let mut body = format!("<h1>Run {id}</h1>");
    let of = "SELECT x.experiment_id, x.name FROM runs AS r JOIN experiment_trials AS p USING (identity) \
              JOIN experiments AS x ON x.experiment_id = p.experiment_id WHERE r.run_id = ?1 ORDER BY x.name";
    for row in site.store.query(of, &[Value::Integer(id)])?.rows {
        let (experiment, name) = (&row[0], escaped(&row[1].to_string()));
        body.push_str(&format!("<p>of <a href=\"/experiment/{experiment}\">{name}</a></p>"));
    }
    body.push_str("<dl>");
    for (column, value) in described.columns.iter().zip(described.rows.first().into_iter().flatten()) {
        if *value != Value::Null {
            body.push_str(&format!("<dt>{}</dt><dd>{}</dd>", escaped(&column.name), escaped(&value.to_string())));
        }
    }
    body.push_str("</dl>");
    let numbers = [(id, String::new())];
    for ((_, title, unit), curves) in MEASURES.iter().zip(curves(site, &numbers)?) {
        body.push_str(&svg(title, unit, &curves));
    }
    body.push_str("<h2>Evaluations</h2>");
    body.push_str(&table(&site.store.run_evaluations(RunId(id))?, &[], &no_link, 0, None));
    if let Some(curve) = named::find("curve") {
        let mut epochs = curve.run(&site.store, &[&id.to_string()])?;
        // The newest first, as everywhere here.
        epochs.rows =
            epochs.rows.into_iter().rev().skip(((view.page - 1) * ROWS) as usize).take(ROWS as usize + 1).collect();
        let pages = paged(&mut epochs, view);
        body.push_str("<h2>Epochs</h2>");
        body.push_str(&table(&epochs, &[], &no_link, 0, None));
        body.push_str(&pages);
    }
    body.push_str("<h2>Settings</h2><dl>");
    for (key, value) in flattened(&site.store.canonical(RunId(id))?)? {
        let value = match value {
            report::Cell::Null | report::Cell::Blob(_) => continue,
            report::Cell::Integer(value) => value.to_string(),
            report::Cell::Real(value) => value.to_string(),
            report::Cell::Text(value) => value,
        };
        body.push_str(&format!("<dt>{}</dt><dd>{}</dd>", escaped(&key), escaped(&value)));
    }
    body.push_str("</dl><h2>Provenance</h2>");
    body.push_str(&table(&site.store.run_claims(RunId(id))?, &[], &no_link, 0, None));
    Ok(Some((format!("Run {id}"), body)))
}
