//! What can go wrong in a lease store. A condition that does not hold is not an error: it is the answer of the call.
//!
//! There is a variant for everything that a caller handles differently, and no more:
//!
//! | variant | the caller | did the call take effect? |
//! |---|---|---|
//! | [`Unavailable`](StoreError::Unavailable) | tries again, within limits | unknown |
//! | [`Invalid`](StoreError::Invalid) | has a mistake in it, or exceeds a limit | no |
//! | [`Malformed`](StoreError::Malformed) | stops this shard and reports it to an operator | not on it; on other rows of the call, maybe |
//! | [`Unusable`](StoreError::Unusable) | stops and reports it to an operator | no, or unknown |

use std::error::Error;

use crate::shard::ShardKey;

/// A failed call of a lease store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store did not answer: a network fault, throttling, a lock that was not free in time. The call may have taken
    /// effect nevertheless, and may still do so later.
    #[error("could not {operation}: {problem}")]
    Unavailable {
        /// What the call was for, with its shard or manifest, as in "take shard 0 of stream orders".
        operation: String,
        /// What happened, in the store's words.
        problem: String,
    },

    /// The store refuses the request and always will. Nothing was done.
    #[error("could not {operation}: {problem}")]
    Invalid {
        /// What the call was for, with its shard or manifest.
        operation: String,
        /// Which rule it breaks.
        problem: String,
    },

    /// A stored item is malformed. It was left as it is, and nothing was done.
    #[error("the stored {item} is malformed: {problem}")]
    Malformed {
        /// The stored item, as in "lease of shard 0 of stream orders".
        item: String,
        /// What is wrong with it.
        problem: String,
    },

    /// The store as a whole can't be used, and will not recover by itself.
    #[error("cannot use the checkpoints in {store}: {problem}")]
    Unusable {
        /// Where the store is.
        store: String,
        /// What is wrong and, if there is a remedy, what to do.
        problem: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later. It may also have taken effect already: each call says how a read shows it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// A malformed lease row.
    pub(crate) fn malformed_lease(key: &ShardKey, problem: impl Into<String>) -> Self {
        Self::Malformed { item: format!("lease of {key}"), problem: problem.into() }
    }
}

/// An error and its causes as one line, `error: cause: cause of the cause`.
///
/// Each text appears once: a cause is left out if what was written so far already contains its text, as when an error's
/// message quotes its cause. Only the `Display` forms are used: the `Debug` form of an SDK error shows whole requests and
/// responses, which hold records and credentials.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    fn chain(texts: &[&'static str]) -> String {
        let link = texts.iter().rev().fold(None, |source, text| Some(Box::new(Link { text, source })));
        error_chain(&link.unwrap())
    }

    #[test]
    fn an_error_is_followed_by_its_causes_in_order() {
        assert_eq!(chain(&["no answer"]), "no answer");
        assert_eq!(
            chain(&["dispatch failure", "io error", "connection refused"]),
            "dispatch failure: io error: connection refused"
        );
    }

    #[test]
    fn a_text_that_was_already_written_is_not_repeated() {
        assert_eq!(chain(&["timed out", "timed out", "socket closed"]), "timed out: socket closed");
        assert_eq!(chain(&["could not read: disk full", "disk full"]), "could not read: disk full");
        assert_eq!(chain(&["one", "other", "one"]), "one: other");
        assert_eq!(chain(&["one", ""]), "one");
    }
}
