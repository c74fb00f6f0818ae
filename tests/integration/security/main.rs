//! What must not happen: personal data or secrets where they must not be, files and objects outside of their places, and
//! small inputs that cost much.
//!
//! The real binary runs as a process, on files and against models of AWS. `docs/security.md` says what each part proves and
//! how to run the large forms of it.

#![expect(clippy::disallowed_methods, reason = "processes are given time, which is the real one")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test: what fails, fails it")]
#![expect(clippy::cast_possible_truncation, reason = "bits of digests and bytes of base64, on machines of 64 bits")]

mod lake;
mod place;
mod records;
mod rules;
mod search;
mod services;

mod bombs;
mod marks;
mod paths;
mod secrets;
