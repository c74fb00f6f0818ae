//! `doctor`: what is wrong with a fleet and everything that it needs, in the order of harm, and what fixes it.
//!
//! Owns: arguments, printing, and the exit code. Does not own: the examinations (`doctor`), the table of findings (`diagnosis`).

use std::process::ExitCode;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::cli::args::LakeArgs;
use crate::cli::output::counted;
use crate::cli::progress_bar::bar;
use crate::cli::{Usage, load};
use crate::config::Overrides;
use crate::diagnosis::{Diagnosis, Severity};
use crate::doctor::{DoctorOptions, examine};
use crate::settings::units::parse_duration;

/// The longest time that leases are watched without `--watch`.
const WATCH_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    /// A source; may be repeated
    #[arg(long, value_name = "URL")]
    pub(crate) source: Vec<String>,

    /// Do not try what a worker must be allowed to do: for credentials that are not a worker's
    #[arg(long)]
    pub(crate) skip_permissions: bool,

    /// Time to watch the leases, to see which workers are alive [default: the failover time, 30s at most]
    #[arg(long, value_name = "TIME")]
    pub(crate) watch: Option<String>,

    /// How long each examination may take
    #[arg(long, value_name = "TIME", default_value = "2m")]
    pub(crate) within: String,
}

pub(crate) async fn doctor(args: &DoctorArgs, json: bool) -> anyhow::Result<ExitCode> {
    let watch = args.watch.as_deref().map(parse_duration).transpose().map_err(Usage)?;
    let within = parse_duration(&args.within).map_err(Usage)?;
    let config = load(&Overrides { sources: args.source.clone(), ..args.lake.overrides() })?;
    let watch = watch.unwrap_or(config.worker.leases.failover.min(WATCH_MAX));
    let options = DoctorOptions { watch, tries_permissions: !args.skip_permissions, within };
    let bar = bar(0, "{spinner} examining {msg}");
    bar.set_message("lake, leases and sources");
    bar.enable_steady_tick(Duration::from_millis(200));
    let progress = |_: &str, left: usize| bar.set_message(format!("{} more", counted(left as u64, "thing")));
    let diagnosis = examine(config, &options, &progress).await?;
    bar.finish_and_clear();
    if json {
        println!("{}", as_json(&diagnosis));
    } else {
        print(&diagnosis);
    }
    Ok(ExitCode::from(exit_code(&diagnosis)))
}

/// 0: sound; 1: something will hurt, or could not be checked; 3: something hurts now. 2 is for wrong usage.
fn exit_code(diagnosis: &Diagnosis) -> u8 {
    match diagnosis.worst() {
        Some(Severity::Critical) => 3,
        Some(Severity::Warning) => 1,
        _ => u8::from(!diagnosis.unchecked.is_empty()),
    }
}

fn count(diagnosis: &Diagnosis, severity: Severity) -> usize {
    diagnosis.findings.iter().filter(|finding| finding.kind.severity() == severity).count()
}

fn as_json(diagnosis: &Diagnosis) -> Value {
    let findings: Vec<Value> = diagnosis
        .findings
        .iter()
        .map(|finding| {
            let kind = finding.kind;
            json!({
                "id": kind, "severity": kind.severity(), "what": finding.what, "harm": kind.harm(), "fix": plain(kind.fix()),
            })
        })
        .collect();
    json!({
        "ok": exit_code(diagnosis) == 0,
        "critical": count(diagnosis, Severity::Critical),
        "warnings": count(diagnosis, Severity::Warning),
        "notes": count(diagnosis, Severity::Note),
        "findings": findings,
        "unchecked": diagnosis.unchecked,
    })
}

fn print(diagnosis: &Diagnosis) {
    for finding in &diagnosis.findings {
        let kind = finding.kind;
        println!("{} [{kind}]: {}", kind.severity().as_str(), finding.what);
        println!("  why it hurts: {}", kind.harm());
        println!("  what fixes it: {}\n", plain(kind.fix()));
    }
    for unchecked in &diagnosis.unchecked {
        println!("could not check {}: {}", unchecked.what, unchecked.why);
    }
    let total = |severity, name| counted(count(diagnosis, severity) as u64, name);
    let critical = count(diagnosis, Severity::Critical);
    let (warnings, notes) = (total(Severity::Warning, "warning"), total(Severity::Note, "note"));
    match (diagnosis.findings.is_empty(), diagnosis.unchecked.len()) {
        (true, 0) => println!("everything is sound"),
        (_, 0) => println!("{critical} critical, {warnings}, {notes}"),
        (_, unchecked) => println!("{critical} critical, {warnings}, {notes}; {unchecked} not checked"),
    }
}

/// The texts are Markdown.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::FindingKind;

    #[test]
    fn the_exit_code_is_by_the_worst_finding() {
        let with = |kinds: &[FindingKind]| {
            let mut diagnosis = Diagnosis::default();
            kinds.iter().for_each(|kind| diagnosis.find(*kind, "x"));
            diagnosis
        };
        assert_eq!(exit_code(&with(&[])), 0);
        assert_eq!(exit_code(&with(&[FindingKind::BucketNotVersioned])), 0, "somebody may have decided so");
        assert_eq!(exit_code(&with(&[FindingKind::BucketNotVersioned, FindingKind::Leftovers])), 1);
        assert_eq!(exit_code(&with(&[FindingKind::Leftovers, FindingKind::DataLost])), 3);
        let mut unchecked = with(&[]);
        unchecked.cannot_check("the bucket", "why");
        assert_eq!(exit_code(&unchecked), 1);
        assert_eq!(as_json(&unchecked)["ok"], false);
    }
}
