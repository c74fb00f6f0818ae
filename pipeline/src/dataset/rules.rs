//! One column's type and rules, as the plan has them.
//!
//! Owns: what the scanner reads for a type, what type lands, the checks and the transform. Does not own: whether a rule
//! suits its type (`check`), where a column's values stand (`compile`), what a transform does (`anonymize`).

use crate::dataset::definition::{FieldRules, Rule, ScalarKind, TimeFormat};
use crate::dataset::pattern::Pattern;
use crate::dataset::plan::{Checks, ColumnType, InputKind, TextChecks, Transform};
use crate::time::DAY_MS;
use crate::toml_reader::{At, Scalar};

pub(super) fn is_drop(rules: &FieldRules) -> bool {
    matches!(rules.anonymize, Some(At { value: Rule::Drop, .. }))
}

pub(super) fn field_input(kind: ScalarKind, rules: &FieldRules) -> InputKind {
    match rules.anonymize {
        Some(At { value: Rule::AgeBand(_), .. }) => InputKind::Int,
        _ => scalar_input(kind),
    }
}

pub(super) fn scalar_input(kind: ScalarKind) -> InputKind {
    match kind {
        ScalarKind::String => InputKind::Text,
        ScalarKind::Int32 | ScalarKind::Int64 => InputKind::Int,
        ScalarKind::Float64 => InputKind::Float,
        ScalarKind::Bool => InputKind::Bool,
        ScalarKind::Json => InputKind::Json,
        ScalarKind::Date32(format) | ScalarKind::TimestampMillis(format) => match format {
            TimeFormat::Rfc3339 | TimeFormat::Date => InputKind::Text,
            TimeFormat::EpochMs => InputKind::Int,
            TimeFormat::EpochS => InputKind::Float,
        },
    }
}

pub(super) fn output_type(kind: ScalarKind, rules: &FieldRules) -> ColumnType {
    if matches!(rules.anonymize, Some(At { value: Rule::AgeBand(_), .. })) {
        return ColumnType::String;
    }
    match kind {
        ScalarKind::String => ColumnType::String,
        ScalarKind::Int32 => ColumnType::Int32,
        ScalarKind::Int64 => ColumnType::Int64,
        ScalarKind::Float64 => ColumnType::Float64,
        ScalarKind::Bool => ColumnType::Bool,
        ScalarKind::Date32(_) => ColumnType::Date32,
        ScalarKind::TimestampMillis(_) => ColumnType::TimestampMillis,
        ScalarKind::Json => ColumnType::Json,
    }
}

pub(super) fn transform(rules: &FieldRules) -> Transform {
    match rules.anonymize.as_ref().map(|at| &at.value) {
        None | Some(Rule::Drop) => Transform::Keep,
        Some(Rule::Pseudonym) => Transform::Pseudonym,
        Some(Rule::AgeBand(bands)) => Transform::AgeBand(bands.clone()),
        Some(Rule::Region(keep)) => Transform::Region(keep.iter().map(|name| name.to_lowercase()).collect()),
        Some(Rule::TruncateIp) => Transform::TruncateIp,
        Some(Rule::TruncateToHour) => Transform::TruncateTime(3_600_000),
        Some(Rule::TruncateToDay) => Transform::TruncateTime(DAY_MS),
        // `check` has refused what does not compile.
        Some(Rule::Match(pattern)) => Pattern::new(pattern).map_or(Transform::Keep, Transform::Match),
    }
}

pub(super) fn checks(rules: &FieldRules, kind: ScalarKind, text_input: bool) -> Checks {
    let number = |bound: &Option<At<f64>>| bound.as_ref().map(|at| at.value);
    let (mut min, mut max) = (number(&rules.min), number(&rules.max));
    if kind == ScalarKind::Int32 {
        min = Some(min.unwrap_or(f64::MIN).max(f64::from(i32::MIN)));
        max = Some(max.unwrap_or(f64::MAX).min(f64::from(i32::MAX)));
    }
    let constrained =
        rules.min_length.is_some() || rules.max_length.is_some() || rules.one_of.is_some() || rules.pattern.is_some();
    let length = |bound: &Option<At<i64>>| bound.as_ref().and_then(|at| usize::try_from(at.value).ok());
    let text = (text_input && constrained).then(|| TextChecks {
        min_length: length(&rules.min_length).unwrap_or(0),
        max_length: length(&rules.max_length).unwrap_or(usize::MAX),
        one_of: rules.one_of.as_ref().map(|at| {
            let text =
                |value: &Scalar| if let Scalar::Text(text) = value { Some(text.as_bytes().into()) } else { None };
            at.value.iter().filter_map(text).collect()
        }),
        pattern: rules.pattern.as_ref().and_then(|at| Pattern::new(&at.value).ok()),
    });
    Checks { min, max, text }
}
