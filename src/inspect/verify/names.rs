//! Sets of names, in 16 bytes each.
//!
//! Owns: the short form of a name, by which an audit of millions of objects keeps apart what it has seen. Does not own: the names. If one
//! must be shown, the objects are listed again.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

/// The first bytes of the SHA-256 of a text. Two texts with the same bytes are not expected among fewer than 10¹⁸.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name(u128);

impl Name {
    pub(super) fn of(text: &str) -> Self {
        Name::of_bytes(text.as_bytes())
    }

    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Name(u128::from_be_bytes(first))
    }

    /// For sums that do not depend on an order.
    pub(super) fn number(self) -> u128 {
        self.0
    }
}

/// A set of names.
pub(super) type Names = HashSet<Name>;
/// Something about each name.
pub(super) type ByName<T> = HashMap<Name, T>;
