//! The graph as text, as a Mermaid flowchart and in DOT.
//!
//! Owns: how nodes and edges are drawn. Does not own: which there are (`graph`).

use std::fmt::Write;

use crate::graph::{Count, Counts, EdgeIndex, Graph, NodeKind};

impl Graph {
    /// The graph as lines for people, with what has passed along each edge if counts are given.
    pub fn text(&self, counts: Option<&Counts>) -> String {
        let mut out = String::new();
        let from_width = self.edges.iter().map(|edge| self.nodes[edge.from].name.chars().count()).max().unwrap_or(0);
        let to_width = self.edges.iter().map(|edge| self.nodes[edge.to].name.chars().count()).max().unwrap_or(0);
        let mut drawn: Vec<usize> = (0..self.edges.len()).collect();
        drawn.sort_by_key(|edge| (self.edges[*edge].id.stage, self.edges[*edge].dead_letters));
        for number in drawn {
            let edge = &self.edges[number];
            let (from, to) = (&self.nodes[edge.from], &self.nodes[edge.to]);
            let arrow = if edge.dead_letters { "··>" } else { "──>" };
            let from_name = format!("{:<from_width$}", from.name);
            let last = match counts {
                Some(counts) => {
                    let Count { records, bytes } = counts[EdgeIndex(number)];
                    format!("{:<to_width$}  {records:>12} records  {bytes:>15} bytes", to.name)
                }
                None if to.detail.is_empty() => to.name.clone(),
                None => format!("{:<to_width$}  {}", to.name, to.detail),
            };
            let _ = writeln!(out, "{from_name}  {arrow}  {}", last.trim_end());
        }
        out
    }

    /// The graph as a Mermaid flowchart.
    pub fn mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        for (number, node) in self.nodes.iter().enumerate() {
            let name = node.name.replace('"', "#quot;");
            let _ = match node.kind {
                NodeKind::Source => writeln!(out, "  n{number}[(\"{name}\")]"),
                NodeKind::Stage => writeln!(out, "  n{number}[\"{name}\"]"),
                NodeKind::Sink => writeln!(out, "  n{number}[/\"{name}\"/]"),
            };
        }
        for edge in &self.edges {
            let arrow = if edge.dead_letters { "-.->" } else { "-->" };
            let _ = writeln!(out, "  n{} {arrow} n{}", edge.from, edge.to);
        }
        out
    }

    /// The graph in Graphviz's DOT language.
    pub fn dot(&self) -> String {
        let mut out = String::from("digraph shardlake {\n  rankdir=LR;\n");
        for (number, node) in self.nodes.iter().enumerate() {
            let shape = match node.kind {
                NodeKind::Source => "cylinder",
                NodeKind::Stage => "box",
                NodeKind::Sink => "folder",
            };
            let name = node.name.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(out, "  n{number} [shape={shape}, label=\"{name}\"];");
        }
        for edge in &self.edges {
            let style = if edge.dead_letters { " [style=dashed]" } else { "" };
            let _ = writeln!(out, "  n{} -> n{}{style};", edge.from, edge.to);
        }
        out.push_str("}\n");
        out
    }
}
