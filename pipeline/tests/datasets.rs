//! The schemas of datasets for other programs, and lookup tables.

// Schemas for catalogues, producers and readers.
#[path = "datasets/schemas.rs"]
mod schemas;

// Small reference tables.
#[path = "datasets/lookups.rs"]
mod lookups;
