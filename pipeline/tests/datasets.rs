//! What the datasets promise to the outside world, and the tables that they are joined to.

mod common;

// Schemas for catalogues, producers and readers.
#[path = "datasets/schemas.rs"]
mod schemas;

// Small reference tables.
#[path = "datasets/lookups.rs"]
mod lookups;
