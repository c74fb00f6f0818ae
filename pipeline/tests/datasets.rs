//! The schemas of datasets for other programs, and lookup tables.

// Schemas for catalogues, producers and readers.
#[path = "datasets/schemas.rs"]
mod schemas;

// The datasets of what came after Pinpoint.
#[path = "datasets/messaging.rs"]
mod messaging;

// Small reference tables.
#[path = "datasets/lookups.rs"]
mod lookups;
