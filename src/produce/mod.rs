//! Realistic sample records, from a seed.
