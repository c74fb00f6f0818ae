//! `doctor`: what is wrong with a fleet, and what to do.
//!
//! Owns: printing, and the exit code. Does not own: looking (`crate::doctor`).

use std::process::ExitCode;
use std::sync::Arc;

use indicatif::ProgressBar;
use serde_json::json;

use crate::cli::args::DoctorArgs;
use crate::cli::output::counted;
use crate::cli::{Usage, load};
use crate::clock::{SharedClock, SystemClock};
use crate::doctor::{Scope, examine};
use crate::findings::{Finding, Findings, Severity};
use crate::settings::units::parse_duration;

/// The exit code if something is critical.
const CRITICAL: u8 = 3;

pub(crate) async fn doctor(args: &DoctorArgs, json: bool) -> anyhow::Result<ExitCode> {
    let watch = match &args.watch {
        Some(text) => Some(parse_duration(text).map_err(Usage)?),
        None => None,
    };
    let config = load(&args.lake.overrides())?;
    // A lease is renewed three times in the failover time.
    let watch = watch.unwrap_or(config.worker.leases.failover / 2);
    let config = config.waiting_briefly();
    let scope = Scope { permissions: !args.skip_permissions, watch };
    let clock: SharedClock = Arc::new(SystemClock);
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(std::time::Duration::from_millis(200));
    let step = |what: &str| spinner.set_message(format!("looking at {what}"));
    let found = examine(&config, scope, &clock, &step).await;
    spinner.finish_and_clear();
    let code = code_of(&found);
    if json {
        println!("{}", json!({ "findings": found.found, "not_checked": found.unknown, "ok": code == 0 }));
    } else {
        print(&found);
    }
    Ok(ExitCode::from(code))
}

fn code_of(found: &Findings) -> u8 {
    match found.found.iter().map(|finding| finding.kind.severity).min() {
        Some(Severity::Critical) => CRITICAL,
        Some(Severity::Warning) => 1,
        Some(Severity::Note) | None => u8::from(!found.unknown.is_empty()),
    }
}

fn print(found: &Findings) {
    for Finding { kind, what } in &found.found {
        println!("{}: {} ({})", kind.severity.as_str(), what, kind.id);
        println!("    {}", kind.why);
        println!("    -> {}", kind.advice);
    }
    for unknown in &found.unknown {
        println!("cannot check {}: {}", unknown.what, unknown.problem);
    }
    let worse = found.found.iter().filter(|finding| finding.kind.severity != Severity::Note).count();
    if worse == 0 && found.unknown.is_empty() {
        println!("all well");
    } else {
        let not_checked = u64::try_from(found.unknown.len()).unwrap_or(u64::MAX);
        println!(
            "{}, {} not checked",
            counted(u64::try_from(worse).unwrap_or(u64::MAX), "problem"),
            counted(not_checked, "thing")
        );
    }
}
