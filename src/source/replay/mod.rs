//! Sources that read a part of the past again, with the identities that its records had at first.
//!
//! Owns: the kinds of such sources. Does not own: what is read again and why (`replay`, `redrive`).

pub mod raw_slice;
