//! `cost`: what a pipeline costs on AWS in a month, in four ways, and each line of it.
//!
//! Owns: turning flags into a workload, and printing. Does not own: the arithmetic (`cost`), the review of a lake (`cost_review`).

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::Usage;
use crate::cli::cost_args::{CostArgs, EstimateArgs, PhaseArg};
use crate::cli::cost_review::monthly_review;
use crate::cli::output::{Table, counted, show_bytes, show_count, show_number, show_usd};
use crate::cost::{
    Analytics, Capacity, Checked, Estimate, Item, Line, Network, PHASES, Part, Phase, Prices, TABLE, Workload,
    estimate, estimate_analytics,
};
use crate::settings::units::{parse_bytes, parse_duration, write_duration};

/// Columns of a terminal.
const COLUMNS: usize = 100;

pub(crate) async fn cost(args: &CostArgs, json: bool) -> anyhow::Result<ExitCode> {
    if args.print_prices {
        print!("{TABLE}");
        return Ok(ExitCode::SUCCESS);
    }
    let prices = prices(args)?;
    if !args.monthly_review && (!args.inventory.is_empty() || args.inventory_schema.is_some()) {
        return Err(Usage("--inventory and --inventory-schema are for --monthly-review".to_owned()).into());
    }
    if args.monthly_review {
        return monthly_review(args, &prices, json).await;
    }
    let months: Vec<Month> = match args.estimate.phase {
        None => vec![Month::new(None, workload(&args.estimate, None).map_err(Usage)?, &prices)],
        Some(PhaseArg::All) => {
            let of_phase = |phase| Ok(Month::new(Some(phase), workload(&args.estimate, Some(phase))?, &prices));
            PHASES.iter().map(of_phase).collect::<Result<_, String>>().map_err(Usage)?
        }
        Some(one) => {
            let phase = &PHASES[one as usize - 1];
            vec![Month::new(Some(phase), workload(&args.estimate, Some(phase)).map_err(Usage)?, &prices)]
        }
    };
    match (&months[..], json) {
        ([month], true) => println!("{}", month.to_json(&prices)),
        (months, true) => {
            let phases: Vec<Value> = months.iter().map(|month| month.to_json(&prices)).collect();
            println!("{}", json!({ "phases": phases }));
        }
        ([month], false) => print!("{}", month.to_text(&prices)),
        (months, false) => print!("{}", phases_to_text(months, &prices)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The prices: those that are built in, with the rows of the user's file.
fn prices(args: &CostArgs) -> anyhow::Result<Prices> {
    let mut prices = Prices::built_in();
    if let Some(path) = &args.prices {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| Usage(format!("could not read {name}: {error}")))?;
        prices = prices.with_rows_of(&name, &text).map_err(|problems| Usage(format!("prices: {problems}")))?;
    }
    Ok(if args.no_free_tier { prices.without_free_units() } else { prices })
}

/// The workload that the flags describe, over that of a phase.
fn workload(args: &EstimateArgs, phase: Option<&Phase>) -> Result<Workload, String> {
    let capacity = if args.on_demand { Capacity::OnDemand } else { Capacity::Provisioned };
    let bytes = args.bytes.as_deref().map(parse_bytes).transpose().map_err(|problem| format!("--bytes: {problem}"))?;
    let base = phase.map(|phase| phase.workload(capacity));
    let missing = "needs --records-per-day and --bytes, or --phase";
    let records = args.records_per_day.or(base.as_ref().map(|base| base.records_per_day)).ok_or(missing)?;
    let bytes = bytes.or(base.as_ref().map(|base| base.record_bytes)).ok_or(missing)?;
    let mut workload = Workload::new(records, bytes, args.shards, capacity);
    if let Some(base) = base {
        workload.athena_tb = base.athena_tb;
        workload.quicksight_authors = base.quicksight_authors;
        workload.crawler = base.crawler;
    }
    workload.crawler |= args.crawler;
    workload.fan_out = args.fan_out;
    workload.workers = args.workers;
    workload.on_ec2 = args.ec2;
    workload.vcpu = args.vcpu;
    workload.memory_gb = args.memory_gb;
    workload.network = if args.nat { Network::Nat } else { Network::PublicIp };
    workload.commit_interval =
        parse_duration(&args.commit_interval).map_err(|problem| format!("--commit-interval: {problem}"))?;
    workload.partitions = args.partitions;
    workload.month = args.month;
    workload.athena_tb = args.athena_tb.unwrap_or(workload.athena_tb);
    workload.quicksight_authors = args.quicksight_authors.unwrap_or(workload.quicksight_authors);
    workload.check().map_err(|problems| problems.join("\n  "))?;
    Ok(workload)
}

/// One month: the workload, and the bills for it.
struct Month<'p> {
    phase: Option<&'p Phase>,
    workload: Workload,
    bills: Vec<Estimate>,
    analytics: Analytics,
}

impl<'p> Month<'p> {
    fn new(phase: Option<&'p Phase>, workload: Workload, prices: &Prices) -> Self {
        let (bills, analytics) = (estimate(&workload, prices), estimate_analytics(&workload, prices));
        Month { phase, workload, bills, analytics }
    }

    fn to_json(&self, prices: &Prices) -> Value {
        let lines = |lines: &[Line]| lines.iter().map(|line| line_as_json(line, prices)).collect::<Vec<_>>();
        let designs: Vec<Value> = self
            .bills
            .iter()
            .map(|bill| {
                json!({
                    "design": bill.design, "title": bill.design.title(), "totalUsd": bill.total(),
                    "unknown": bill.unknown().iter().map(|item| item.id()).collect::<Vec<_>>(),
                    "lines": lines(&bill.lines), "notes": bill.notes,
                })
            })
            .collect();
        json!({
            "phase": self.phase, "workload": self.workload, "recordsPerMonth": self.workload.records(),
            "bytesPerMonth": self.workload.bytes(), "designs": designs,
            "analytics": { "totalUsd": self.analytics.total(), "lines": lines(&self.analytics.lines) },
        })
    }

    fn to_text(&self, prices: &Prices) -> String {
        let Workload { records_per_day, record_bytes, shards, capacity, month, workers, .. } = self.workload;
        let mut text = String::new();
        if let Some(phase) = self.phase {
            let (from, to) = phase.expected_usd;
            line(&mut text, format_args!("phase {}, {}: {}", phase.number, phase.name, phase.named));
            line(&mut text, format_args!("expected there: ${from} to ${to} a month"));
            line(&mut text, format_args!("{}\n", wrapped(&format!("taken here: {}", phase.taken), "")));
        }
        let shards = counted(shards.into(), "shard");
        let capacity = if capacity == Capacity::OnDemand { "on demand" } else { "provisioned" };
        line(
            &mut text,
            format_args!(
                "{} records a day of {}, {} GB a month; {shards}, {capacity};\n{} that commits every {}; costs of month {month}\n",
                show_count(records_per_day),
                show_bytes(record_bytes),
                show_number(self.workload.bytes() / crate::cost::GB),
                counted(workers.into(), "worker"),
                write_duration(self.workload.commit_interval),
            ),
        );
        let mut table = Table::new(&["$ a month", ">Shardlake", ">Firehose", ">Lambdas", ">Channel"]);
        for part in Part::ALL {
            let cell = |bill: &Estimate| match bill.total_of(part) {
                Some(usd) => show_usd(usd),
                None if bill.lines.iter().any(|line| line.part == part) => "?".to_owned(),
                None => "-".to_owned(),
            };
            table.row(row(part.name(), self.bills.iter().map(cell)));
        }
        table.row(row("total", self.bills.iter().map(show_total)));
        line(&mut text, format_args!("{}", table.render("")));
        for bill in &self.bills {
            line(&mut text, format_args!("{}: {}", bill.design.name(), bill.design.title()));
            bill.lines.iter().for_each(|of_bill| line_to_text(&mut text, of_bill, prices));
            sum_line(&mut text, "total", &show_total(bill));
            bill.notes.iter().for_each(|note| line(&mut text, format_args!("{}", wrapped(note, "  "))));
            text.push('\n');
        }
        line(&mut text, format_args!("Queries, dashboards and alarms, in addition to each of them"));
        self.analytics.lines.iter().for_each(|of_bill| line_to_text(&mut text, of_bill, prices));
        sum_line(&mut text, "total", &show_usd(self.analytics.total()));
        text.push('\n');
        line(&mut text, format_args!("{}", about_prices(self.items(), prices)));
        text
    }

    fn items(&self) -> BTreeSet<Item> {
        let lines = self.bills.iter().flat_map(|bill| &bill.lines).chain(&self.analytics.lines);
        lines.map(|line| line.item).collect()
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.push_str(&line.to_string());
    text.push('\n');
}

/// A text, and a sum at the right margin.
fn sum_line(text: &mut String, left: &str, sum: &str) {
    let width = COLUMNS.saturating_sub(2 + left.chars().count()).max(sum.chars().count() + 1);
    line(text, format_args!("  {left}{sum:>width$}"));
}

/// A sentence in lines that fit a terminal.
fn wrapped(sentence: &str, indent: &str) -> String {
    let mut lines = vec![indent.to_owned()];
    for word in sentence.split(' ') {
        let current = lines.last_mut().expect("there is a first line");
        if current.len() > indent.len() && current.chars().count() + word.chars().count() >= COLUMNS {
            lines.push(format!("{indent}{word}"));
        } else {
            current.push_str(if current.len() > indent.len() { " " } else { "" });
            current.push_str(word);
        }
    }
    lines.join("\n")
}

/// All phases, one row each.
fn phases_to_text(months: &[Month<'_>], prices: &Prices) -> String {
    let mut table = Table::new(&[
        "$ a month",
        ">records a month",
        ">expected",
        ">Shardlake",
        ">Firehose",
        ">Lambdas",
        ">Channel",
        ">analytics",
    ]);
    for month in months {
        let Some(phase) = month.phase else { continue };
        let (from, to) = phase.expected_usd;
        let total = |design: usize| show_total(&month.bills[design]);
        table.row([
            format!("{} {}", phase.number, phase.name),
            show_count(phase.records_per_month),
            format!("{from}-{to}"),
            total(0),
            total(1),
            total(2),
            total(3),
            show_usd(month.analytics.total()),
        ]);
    }
    let items = months.iter().flat_map(Month::items).collect();
    let sentence =
        "analytics: queries, dashboards and alarms, in addition to each of the four. `--phase N` explains every line.";
    format!("{}\n{}\n{}\n", table.render(""), wrapped(sentence, ""), about_prices(items, prices))
}

fn row(name: &str, cells: impl Iterator<Item = String>) -> [String; 5] {
    let mut row = [name.to_owned(), String::new(), String::new(), String::new(), String::new()];
    for (place, cell) in row.iter_mut().skip(1).zip(cells) {
        *place = cell;
    }
    row
}

/// The sum, with a mark if something in it has no known price.
fn show_total(bill: &Estimate) -> String {
    let total = show_usd(bill.total());
    if bill.unknown().is_empty() { total } else { format!("{total} + ?") }
}

/// A line of a bill: its units, their price and the sum; below it, where the units come from.
fn line_to_text(text: &mut String, of_bill: &Line, prices: &Prices) {
    let price = prices.get(of_bill.item);
    let units = format!("{} {}", show_number(of_bill.units), in_plural(&price.unit, of_bill.units));
    let free = match of_bill.free {
        0.0 => String::new(),
        free if free < of_bill.units => format!(", {} free,", show_number(free)),
        _ => ", all free,".to_owned(),
    };
    let at = match price.usd {
        Some(usd) if (price.per - 1.0).abs() > 1e-9 => format!("× ${usd} per {}", in_words(price.per)),
        Some(usd) => format!("× ${usd}"),
        None => "× a price that is not known".to_owned(),
    };
    let mark = if price.checked == Checked::Unchecked { " (unchecked)" } else { "" };
    let left = format!("{:<13}{units}{free} {at}{mark}", of_bill.part.name());
    let usd = of_bill.usd.map_or_else(|| "?".to_owned(), show_usd);
    sum_line(text, &left, &usd);
    line(text, format_args!("{}", wrapped(&of_bill.why, &" ".repeat(15))));
}

fn in_words(per: f64) -> String {
    match show_number(per).as_str() {
        "1,000" => "thousand".to_owned(),
        "1,000,000" => "million".to_owned(),
        other => other.to_owned(),
    }
}

fn in_plural(unit: &str, count: f64) -> String {
    let is_singular = unit == "GB" || unit == "TB" || (count - 1.0).abs() < 1e-9;
    if is_singular { unit.to_owned() } else { format!("{unit}s") }
}

/// Where the prices come from, in a sentence.
fn about_prices(items: BTreeSet<Item>, prices: &Prices) -> String {
    let rows: Vec<_> = items.into_iter().map(|item| prices.get(item)).collect();
    let regions: BTreeSet<&str> = rows.iter().map(|price| price.region.as_str()).collect();
    let days: BTreeSet<&str> = rows.iter().map(|price| price.day.as_str()).collect();
    let count = |checked: Checked| rows.iter().filter(|price| price.checked == checked).count();
    let regions: Vec<&str> = regions.into_iter().collect();
    let sentence = format!(
        "Prices: {} rows, {}, known for {} to {}: {} read on AWS's pages, {} quoted by others, {} unchecked, {} not known. \
         No taxes, no discounts. `cost --print-prices` shows the table, and `--prices FILE` replaces rows of it.",
        rows.len(),
        regions.join(" and "),
        days.first().copied().unwrap_or_default(),
        days.last().copied().unwrap_or_default(),
        count(Checked::Page),
        count(Checked::Quoted),
        count(Checked::Unchecked),
        count(Checked::Unknown),
    );
    wrapped(&sentence, "")
}

fn line_as_json(line: &Line, prices: &Prices) -> Value {
    let price = prices.get(line.item);
    json!({
        "part": line.part, "item": line.item.id(), "units": line.units, "unit": price.unit, "freeUnits": line.free,
        "priceUsd": price.usd, "per": price.per, "usd": line.usd, "why": line.why, "region": price.region, "day": price.day,
        "page": price.page, "checked": price.checked, "note": price.note,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cost::Design;

    const BEGIN: &str = "<!-- phases: generated by `shardlake cost` -->\n";
    const END: &str = "<!-- end of phases -->\n";

    fn months() -> Vec<Month<'static>> {
        let prices = Prices::built_in();
        PHASES.iter().map(|phase| Month::new(Some(phase), phase.workload(Capacity::Provisioned), &prices)).collect()
    }

    /// The part of docs/cost.md that has the figures of the phases.
    fn phases_for_docs() -> String {
        let prices = Prices::built_in();
        let months = months();
        let mut text = format!("\n```console\n$ shardlake cost --phase all\n{}```\n", phases_to_text(&months, &prices));
        for month in &months {
            let Some(phase) = month.phase else { continue };
            let (number, name) = (phase.number, phase.name);
            let of_phase = month.to_text(&prices);
            text.push_str(&format!(
                "\n### Phase {number}: {name}\n\n```console\n$ shardlake cost --phase {number}\n{of_phase}```\n"
            ));
        }
        text.push('\n');
        text
    }

    #[test]
    fn the_documentation_has_the_figures_of_the_phases() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cost.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("docs/cost.md has the mark where the phases begin");
        let (found, after) = rest.split_once(END).expect("docs/cost.md has the mark where the phases end");
        let expected = phases_for_docs();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, [before, BEGIN, &expected, END, after].concat()).unwrap();
        } else {
            assert!(found == expected, "docs/cost.md is out of date: run this test with UPDATE_DOCS=1");
        }
    }

    #[test]
    fn every_line_fits_a_terminal() {
        let large =
            Workload { month: 120, fan_out: true, ..Workload::new(900_000_000_000, 9_999, None, Capacity::OnDemand) };
        let prices = Prices::built_in();
        let mut texts: Vec<String> = months().iter().map(|month| month.to_text(&prices)).collect();
        texts.push(Month::new(None, Workload { shards: 20_000, ..large }, &prices).to_text(&prices));
        texts.push(phases_to_text(&months(), &prices));
        for text in texts {
            for line in text.lines() {
                assert!(line.chars().count() <= COLUMNS, "{} columns: {line}", line.chars().count());
            }
        }
    }

    #[test]
    fn the_columns_of_the_table_are_the_designs_in_their_order() {
        let names: Vec<&str> = Design::ALL.into_iter().map(Design::name).collect();
        assert_eq!(names, ["Shardlake", "Firehose", "Lambdas", "Channel"]);
    }

    #[test]
    fn units_have_a_plural() {
        let shown = [in_plural("GB", 2.0), in_plural("request", 1.0), in_plural("GB-month", 0.5)];
        assert_eq!(shown, ["GB", "request", "GB-months"]);
    }
}
