//! `graph`: prints the stage graph.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args as ClapArgs, ValueEnum};
use pipeline::graph::Graph;
use serde_json::{Value, json};

use crate::cli::load;
use crate::config::Overrides;

#[derive(Debug, ClapArgs)]
pub(crate) struct GraphArgs {
    /// Configuration file [default: shardlake.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// A file or directory of records; may be repeated
    #[arg(long, value_name = "URL")]
    source: Vec<String>,

    /// Output format
    #[arg(long, value_enum, default_value_t = GraphFormat::Text)]
    format: GraphFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    Text,
    Mermaid,
    Dot,
}

pub(crate) fn graph(args: &GraphArgs, json: bool) -> anyhow::Result<ExitCode> {
    let overrides = Overrides {
        config: args.config.clone(),
        sources: args.source.clone(),
        without_leases: true,
        ..Overrides::default()
    };
    let config = load(&overrides)?;
    let names: Vec<String> = config
        .sources
        .iter()
        .map(|source| source.stream_name().map_or_else(|| source.url.to_string(), str::to_owned))
        .collect();
    let graph = Graph::new(&names, &config.datasets, config.worker.output.raw.is_some());
    if json {
        println!("{}", as_json(&graph));
        return Ok(ExitCode::SUCCESS);
    }
    match args.format {
        GraphFormat::Text => print!("{}", graph.text(None)),
        GraphFormat::Mermaid => print!("{}", graph.mermaid()),
        GraphFormat::Dot => print!("{}", graph.dot()),
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(graph: &Graph) -> Value {
    let nodes: Vec<Value> = graph
        .nodes()
        .iter()
        .map(|node| {
            let kind = format!("{:?}", node.kind).to_lowercase();
            json!({ "name": node.name, "kind": kind, "detail": node.detail })
        })
        .collect();
    let edges: Vec<Value> = graph
        .edges()
        .map(|(_, edge)| {
            let name = |node: usize| &graph.nodes()[node].name;
            json!({ "id": edge.id.to_string(), "from": name(edge.from), "to": name(edge.to), "dead_letters": edge.dead_letters })
        })
        .collect();
    json!({ "nodes": nodes, "edges": edges })
}
