//! Keys of what redrives have made aside: `_replays/redrive-<process>/<number>/lake/…`.
//!
//! Owns: these keys, in both directions. The name says whose they are, so that somebody else knows when they may go. Does not own: the keys of
//! replays (the parent module).

/// Prefix of what redrives have made aside.
pub const REDRIVES: &str = "_replays/redrive-";

/// The prefix of what the redrive of a process has made aside.
pub fn redrive(process: &str) -> String {
    format!("{REDRIVES}{process}/")
}

/// The prefix of the lake that the `number`-th batch of a redrive writes.
pub fn redrive_lake(process: &str, number: u64) -> String {
    format!("{REDRIVES}{process}/{number:05}/lake/")
}

/// The process whose redrive has made an object aside.
pub fn owner_of_redrive(key: &str) -> Option<&str> {
    key.strip_prefix(REDRIVES)?.split_once('/').map(|(process, _)| process).filter(|process| !process.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_of_redrives_round_trip(process in "[0-9a-f-]{1,36}", number in any::<u64>()) {
            let lake = redrive_lake(&process, number);
            prop_assert!(lake.starts_with(&redrive(&process)) && redrive(&process).starts_with(REDRIVES));
            prop_assert_eq!(owner_of_redrive(&lake), Some(process.as_str()));
        }
    }
}
