//! `check`, `mutations`, `counterexample NAME`: the model's checks from the command line.
//!
//! Owns: what is printed. Does not own: the checks (`check`).

use std::process::ExitCode;

use protocol_model::check::{self, Case, Outcome};
use protocol_model::lake_log::{self, LakeLog, LogMutation};
use protocol_model::liveness::{self, Graph};
use protocol_model::properties::{ALWAYS, LIVENESS};
use protocol_model::{Mutation, narrative};
use stateright::Path;

const USAGE: &str = "usage: check [NAME] | mutations | counterexample MUTATION";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let holds = match args[..] {
        ["check"] => check_all(None),
        ["check", name] => check_all(Some(name)),
        ["mutations"] => mutations(),
        ["counterexample", name] => match (Mutation::named(name), LogMutation::named(name)) {
            (Some(mutation), _) => counterexample(mutation),
            (None, Some(mutation)) => counterexample_of_log(mutation),
            (None, None) => return usage(),
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
    let of_log: Vec<lake_log::check::Case> =
        lake_log::check::cases().into_iter().filter(|case| only.is_none_or(|name| name == case.name)).collect();
    println!("{:<22} {:<92} {:>10} {:>6}  properties", "configuration", "bounds", "states", "depth");
    let mut all = !(cases.is_empty() && of_log.is_empty());
    for case in cases {
        all &= print_outcome(case.name, &case.bounds(), &check::check(&case, threads()), ALWAYS.len());
        if case.checks_liveness {
            all &= print_graph(LIVENESS, &liveness::search(&case.protocol), narrative::describe_state);
        }
    }
    for case in of_log {
        let outcome = lake_log::check::check(&case, threads());
        if let Some(failed) = outcome.failed.first() {
            let path = lake_log::check::counterexample(case.model, failed.split(':').next().unwrap_or_default());
            path.into_iter().for_each(|(_, path)| print_path_of_log(&case.model, path));
        }
        all &= print_outcome(case.name, &case.bounds(), &outcome, lake_log::properties::ALWAYS.len());
        let graph = lake_log::check::leads_to_the_end(&case.model);
        all &= print_graph(lake_log::properties::LIVENESS, &graph, lake_log::narrative::describe_state);
    }
    all
}

fn print_outcome(name: &str, bounds: &str, outcome: &Outcome, properties: usize) -> bool {
    let (failed, unreached) = (&outcome.failed, &outcome.unreached);
    let holds = failed.is_empty() && unreached.is_empty();
    let verdict = if holds {
        format!("{properties} hold, {} reached", outcome.reached)
    } else {
        format!("FAILED: {failed:?}; NOT REACHED: {unreached:?}")
    };
    println!("{name:<22} {bounds:<92} {:>10} {:>6}  {verdict}", outcome.unique, outcome.depth);
    holds
}

fn print_graph<S>(property: &str, graph: &Graph<S>, describe: fn(&S) -> String) -> bool {
    let Graph { states, stuck, goals, example } = graph;
    let verdict = if *stuck == 0 { "holds".to_owned() } else { format!("FAILED: {stuck} states are stuck") };
    println!("{:<22} {property}: {verdict} ({states} states, {goals} of them at the end)", "");
    if let Some(state) = example {
        println!("{}", describe(state));
    }
    *stuck == 0
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
    for mutation in LogMutation::ALL {
        let (caught, steps) = match lake_log::check::caught(mutation) {
            Some((property, steps)) => (property, steps.map(|steps| steps.to_string()).unwrap_or_default()),
            None => ("NOTHING", String::new()),
        };
        println!("{:<26} {steps:>5}  {caught}", mutation.name());
        all &= caught.starts_with(&format!("{}:", lake_log::check::expected(mutation)));
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

/// The path to the state that exposes a mutation of the lake log.
fn counterexample_of_log(mutation: LogMutation) -> bool {
    let model = lake_log::check::mutated(mutation);
    let Some((property, path)) = lake_log::check::counterexample(model, lake_log::check::expected(mutation)) else {
        println!("{} breaks nothing", mutation.name());
        return false;
    };
    println!("{} breaks: {property}\n", mutation.name());
    print_path_of_log(&model, path);
    true
}

fn print_path_of_log(model: &LakeLog, path: Path<lake_log::state::State, lake_log::Action>) {
    for (number, (state, action)) in (1..).zip(path.into_vec()) {
        match action {
            Some(action) => println!("{number:>3}. {}", lake_log::narrative::sentence(model, &state, action)),
            None => println!("\nThen:\n{}", lake_log::narrative::describe_state(&state)),
        }
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
