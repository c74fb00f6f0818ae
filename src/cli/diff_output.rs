//! How a comparison is printed, and what its exit code is: for `replay diff` and `whatif`.
//!
//! Owns: text and JSON of a comparison. Does not own: the comparison (`replay::diff`).

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::Usage;
use crate::cli::output::{Table, show_count};
use crate::replay::diff::thresholds::{Exceeded, Threshold};
use crate::replay::diff::{DatasetDiff, Diff, Sample, SampleKind};

/// Parses thresholds. One that is not valid is a mistake of the caller.
pub(crate) fn thresholds(texts: &[String]) -> anyhow::Result<Vec<Threshold>> {
    Threshold::parse_all(texts).map_err(|problem| Usage(format!("--fail-on: {problem}")).into())
}

/// Prints a comparison after `head`, which is of the command: lines of text, or members of the JSON object. Returns the exit code: 1 if
/// something is doubled on the new side, or a threshold is exceeded.
pub(crate) fn print_diff(diff: &Diff, thresholds: &[Threshold], head: (&str, Value), json: bool) -> ExitCode {
    let exceeded: Vec<Exceeded> = thresholds.iter().filter_map(|threshold| threshold.exceeded(diff)).collect();
    let mut failures: Vec<String> = exceeded.iter().map(ToString::to_string).collect();
    if diff.doubled()[1] > 0 && !thresholds.iter().any(Threshold::is_of_doubles) {
        failures.push(format!("{} rows and dead letters are doubled on the new side", show_count(diff.doubled()[1])));
    }
    if json {
        let mut value = json!({ "ok": failures.is_empty(), "failures": failures, "diff": diff });
        if let (Some(all), Value::Object(head)) = (value.as_object_mut(), head.1) {
            all.extend(head);
        }
        println!("{value}");
    } else {
        print!("{}{}", head.0, text(diff));
    }
    for failure in &failures {
        eprintln!("shardlake: {failure}");
    }
    ExitCode::from(u8::from(!failures.is_empty()))
}

fn missing(of: &DatasetDiff) -> u64 {
    of.only_old + of.to_dead_letters + of.to_other_datasets
}

fn added(of: &DatasetDiff) -> u64 {
    of.only_new + of.from_dead_letters + of.from_other_datasets
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn percent(part: u64, of: u64) -> String {
    let percent = part as f64 * 100.0 / of.max(1) as f64;
    // Something is never shown as nothing.
    if part > 0 && percent < 0.01 { "<0.01 %".to_owned() } else { format!("{percent:.2} %") }
}

fn text(diff: &Diff) -> String {
    let mut text = String::new();
    let dead = &diff.dead_letters;
    let mut tables: Vec<String> = Vec::new();
    let mut rows = Table::new(&["rows", ">old", ">new", ">same", ">changed", ">missing", ">added"]);
    for (name, of) in &diff.datasets {
        let counts = [of.old, of.new, of.same, of.changed, missing(of), added(of)].map(show_count);
        let [old, new, same, changed, missing, added] = counts;
        rows.row([name.clone(), old, new, same, changed, missing, added]);
    }
    tables.extend((!rows.is_empty()).then(|| rows.render("  ")));
    let mut codes = Table::new(&["dead letters", ">old", ">new"]);
    for (code, counts) in &dead.codes {
        codes.row([code.clone(), show_count(counts.old), show_count(counts.new)]);
    }
    tables.extend((!codes.is_empty()).then(|| codes.render("  ")));
    let mut records = Table::new(&["records", ">count"]);
    let sum = |count: fn(&DatasetDiff) -> u64| diff.datasets.values().map(count).sum::<u64>();
    let kinds = [
        ("dead letters that became rows", dead.became_rows),
        ("rows that became dead letters", dead.from_rows),
        ("rows of another dataset now", sum(|of| of.to_other_datasets)),
        ("rows only on the old side", sum(|of| of.only_old)),
        ("rows only on the new side", sum(|of| of.only_new)),
        ("dead letters only on the old side", dead.only_old),
        ("dead letters only on the new side", dead.only_new),
        ("doubled on the old side", diff.doubled()[0]),
        ("doubled on the new side", diff.doubled()[1]),
    ];
    for (kind, count) in kinds.into_iter().filter(|(_, count)| *count > 0) {
        records.row([kind.to_owned(), show_count(count)]);
    }
    for (codes, count) in &dead.other_code {
        records.row([codes.clone(), show_count(*count)]);
    }
    tables.extend((!records.is_empty()).then(|| records.render("  ")));
    let mut columns = Table::new(&["changed values", ">count", ">of rows", ">became null", ">were null"]);
    for (dataset, of) in &diff.datasets {
        for (column, counts) in &of.columns {
            let [changed, became_null, was_null] =
                [counts.changed, counts.became_null, counts.was_null].map(show_count);
            let share = percent(counts.changed, of.on_both());
            columns.row([format!("{dataset}.{column}"), changed, share, became_null, was_null]);
        }
    }
    tables.extend((!columns.is_empty()).then(|| columns.render("  ")));
    if !diff.samples.is_empty() {
        let mut samples = String::from("  examples\n");
        for sample in &diff.samples {
            samples.push_str(&format!("  {}\n", show_sample(sample)));
        }
        tables.push(samples);
    }
    text.push_str(&tables.join("\n"));
    if !tables.is_empty() {
        text.push('\n');
    }
    text.push_str(&summary(diff));
    text
}

fn summary(diff: &Diff) -> String {
    let [old, new] = diff.rows();
    let dead = &diff.dead_letters;
    if diff.same {
        return format!("the same: {} rows and {} dead letters\n", show_count(old), show_count(dead.old));
    }
    let sum = |count: fn(&DatasetDiff) -> u64| diff.datasets.values().map(count).sum::<u64>();
    let (changed, both) = (sum(|of| of.changed), sum(DatasetDiff::on_both));
    format!(
        "rows {} → {} (-{} +{}), {} with changed values ({}); dead letters {} → {}\n",
        show_count(old),
        show_count(new),
        show_count(sum(missing)),
        show_count(sum(added)),
        show_count(changed),
        percent(changed, both),
        show_count(dead.old),
        show_count(dead.new),
    )
}

fn show_sample(sample: &Sample) -> String {
    let Sample { kind, dataset, stream, shard, sequence, subsequence, column, values } = sample;
    let what = match kind {
        SampleKind::OnlyOld => "row only on the old side",
        SampleKind::OnlyNew => "row only on the new side",
        SampleKind::BecameRow => "became a row",
        SampleKind::BecameDeadLetter => "became a dead letter",
        SampleKind::OtherDataset => "other dataset",
        SampleKind::DeadLetterOnlyOld => "dead letter only on the old side",
        SampleKind::DeadLetterOnlyNew => "dead letter only on the new side",
        SampleKind::OtherCode => "other code",
        SampleKind::DoubledOld => "doubled on the old side",
        SampleKind::DoubledNew => "doubled on the new side",
        SampleKind::Changed => "changed",
    };
    let name = match (dataset, column) {
        (Some(dataset), Some(column)) => format!(" {dataset}.{column}"),
        (Some(dataset), None) => format!(" {dataset}"),
        _ => String::new(),
    };
    let values = match (kind, values) {
        (SampleKind::Changed, None) => ": not shown".to_owned(),
        (_, None) => String::new(),
        (SampleKind::BecameRow, Some([value, _])) | (SampleKind::BecameDeadLetter, Some([_, value])) => {
            format!(": {}", show_value(value))
        }
        (SampleKind::Changed | SampleKind::OtherDataset | SampleKind::OtherCode, Some([old, new])) => {
            format!(": {} → {}", show_value(old), show_value(new))
        }
        // The code of a dead letter. Of a row the dataset is named already.
        (_, Some(values)) => {
            let code = values.iter().find(|value| !value.is_null() && value.as_str() != dataset.as_deref());
            code.map_or_else(String::new, |code| format!(": {}", show_value(code)))
        }
    };
    let sub = if *subsequence == 0 { String::new() } else { format!(":{subsequence}") };
    format!("{what}{name}{values}   {stream} {shard} {sequence}{sub}")
}

/// A text as it is, everything else as JSON.
fn show_value(value: &Value) -> String {
    match value {
        // What a terminal would obey is escaped.
        Value::String(text) if !text.chars().any(char::is_control) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::diff::{CodeCounts, ColumnDiff, DeadLetterDiff};

    fn sample(kind: SampleKind, column: Option<&str>, values: Option<[Value; 2]>) -> Sample {
        let (stream, shard, sequence) = ("orders".to_owned(), "shard-1".to_owned(), "17".to_owned());
        let (dataset, column) = (Some("quiz".to_owned()), column.map(str::to_owned));
        Sample { kind, dataset, stream, shard, sequence, subsequence: 2, column, values }
    }

    #[test]
    fn a_comparison_is_printed_with_what_differs_and_nothing_else() {
        let columns = [("score".to_owned(), ColumnDiff { changed: 12, became_null: 1, was_null: 0 })].into();
        let quiz = DatasetDiff {
            old: 1200,
            new: 1201,
            same: 1188,
            changed: 12,
            from_dead_letters: 1,
            columns,
            ..DatasetDiff::default()
        };
        let codes = [("Validate.MissingField".to_owned(), CodeCounts { old: 1, new: 0 })].into();
        let dead_letters = DeadLetterDiff { old: 1, became_rows: 1, codes, ..DeadLetterDiff::default() };
        let samples = vec![
            sample(SampleKind::Changed, Some("score"), Some([json!(0.5), Value::Null])),
            sample(SampleKind::Changed, Some("user_id"), None),
            sample(SampleKind::OnlyOld, None, None),
            sample(SampleKind::OtherCode, None, Some([json!("a"), json!("b")])),
            sample(SampleKind::BecameDeadLetter, None, Some([json!("quiz"), json!("b")])),
            sample(SampleKind::DoubledNew, None, Some([Value::Null, json!("quiz")])),
            sample(SampleKind::DeadLetterOnlyOld, None, Some([json!("a"), Value::Null])),
        ];
        let diff = Diff { same: false, datasets: [("quiz".to_owned(), quiz)].into(), dead_letters, samples, passes: 1 };
        assert_eq!(
            text(&diff),
            "  rows    old    new   same  changed  missing  added\n  \
               quiz  1,200  1,201  1,188       12        0      1\n\n  \
               dead letters           old  new\n  \
               Validate.MissingField    1    0\n\n  \
               records                        count\n  \
               dead letters that became rows      1\n\n  \
               changed values  count  of rows  became null  were null\n  \
               quiz.score         12   1.00 %            1          0\n\n  \
               examples\n  \
               changed quiz.score: 0.5 → null   orders shard-1 17:2\n  \
               changed quiz.user_id: not shown   orders shard-1 17:2\n  \
               row only on the old side quiz   orders shard-1 17:2\n  \
               other code quiz: a → b   orders shard-1 17:2\n  \
               became a dead letter quiz: b   orders shard-1 17:2\n  \
               doubled on the new side quiz   orders shard-1 17:2\n  \
               dead letter only on the old side quiz: a   orders shard-1 17:2\n\n\
             rows 1,200 → 1,201 (-0 +1), 12 with changed values (1.00 %); dead letters 1 → 0\n"
        );
        assert_eq!(text(&Diff { same: true, ..Diff::default() }), "the same: 0 rows and 0 dead letters\n");
        assert_eq!([percent(0, 0), percent(1, 1_000_000), percent(1, 3)], ["0.00 %", "<0.01 %", "33.33 %"]);
        assert_eq!(show_value(&json!("\u{1b}[31m")), r#""\u001b[31m""#);
    }
}
