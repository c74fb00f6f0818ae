//! The worker and its command line: reading, running, committing, telling.

pub mod produce;
