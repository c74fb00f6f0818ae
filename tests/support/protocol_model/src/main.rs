//! `check`, `mutations`, `counterexample NAME`: the model's checks from the command line.
//!
//! Owns: what is printed. Does not own: the checks (`check`).

use std::process::ExitCode;

use protocol_model::check::{self, Case};
use protocol_model::liveness::{self, Graph};
use protocol_model::properties::{ALWAYS, LIVENESS};
use protocol_model::{Mutation, narrative};

const USAGE: &str = "usage: check [NAME] | mutations | counterexample MUTATION";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let holds = match args[..] {
        ["check"] => check_all(None),
        ["check", name] => check_all(Some(name)),
        ["mutations"] => mutations(),
        ["counterexample", name] => match Mutation::named(name) {
            Some(mutation) => counterexample(mutation),
            None => return usage(),
        },
        _ => return usage(),
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// Every configuration, or one, searched to its end.
fn check_all(only: Option<&str>) -> bool {
    let cases: Vec<Case> =
        check::cases().into_iter().filter(|case| only.is_none_or(|name| name == case.name)).collect();
    println!("{:<22} {:<66} {:>10} {:>6}  properties", "configuration", "bounds", "states", "depth");
    let mut all = !cases.is_empty();
    for case in cases {
        let outcome = check::check(&case, threads());
        let (failed, unreached) = (&outcome.failed, &outcome.unreached);
        let holds = failed.is_empty() && unreached.is_empty();
        let verdict = if holds {
            format!("{} hold, {} reached", ALWAYS.len(), outcome.reached)
        } else {
            format!("FAILED: {failed:?}; NOT REACHED: {unreached:?}")
        };
        println!("{:<22} {:<66} {:>10} {:>6}  {verdict}", case.name, case.bounds(), outcome.unique, outcome.depth);
        all &= holds;
        if case.checks_liveness {
            let Graph { states, stuck, goals, example } = liveness::search(&case.protocol);
            let verdict = if stuck == 0 { "holds".to_owned() } else { format!("FAILED: {stuck} states are stuck") };
            println!("{:<22} {LIVENESS}: {verdict} ({states} states, {goals} of them at the end)", "");
            if let Some(state) = example {
                println!("{}", narrative::describe_state(&state));
            }
            all &= stuck == 0;
        }
    }
    all
}

/// Every mutation, and the property that fails under it.
fn mutations() -> bool {
    println!("{:<26} {:>5}  caught by", "mutation", "steps");
    let mut all = true;
    for mutation in Mutation::ALL {
        let (caught, steps) = match check::caught(mutation) {
            Some((property, steps)) => (property, steps.map(|steps| steps.to_string()).unwrap_or_default()),
            None => ("NOTHING", String::new()),
        };
        println!("{:<26} {steps:>5}  {caught}", mutation.name());
        all &= caught.starts_with(&format!("{}:", check::expected(mutation)));
    }
    for mutation in Mutation::REDUNDANT {
        let caught = check::caught(mutation);
        println!("{:<26} {:>5}  {}", mutation.name(), "", caught.map_or("nothing: redundant", |it| it.0));
        all &= caught.is_none();
    }
    all
}

/// The path to the state that exposes a mutation.
fn counterexample(mutation: Mutation) -> bool {
    let protocol = check::mutated(mutation);
    if check::expected(mutation) == "L" {
        let graph = liveness::search(&protocol);
        println!(
            "{LIVENESS}\nstates from which no path leads to the end: {} of {}. One of them:",
            graph.stuck, graph.states
        );
        graph.example.iter().for_each(|state| println!("{}", narrative::describe_state(state)));
        return graph.stuck > 0;
    }
    let Some((property, path)) = check::counterexample(protocol, Some(check::expected(mutation))) else {
        println!("{} breaks nothing", mutation.name());
        return false;
    };
    println!("{} breaks: {property}\n", mutation.name());
    for (number, (state, action)) in (1..).zip(path.into_vec()) {
        match action {
            Some(action) => println!("{number:>3}. {}", narrative::sentence(&protocol, &state, action)),
            None => println!("\nThen:\n{}", narrative::describe_state(&state)),
        }
    }
    true
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
