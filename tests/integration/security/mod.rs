//! What must not happen: personal data or secrets where they must not be, files and objects outside their places, and small
//! inputs that cost much.
//!
//! The real binary runs as a process, on files and against models of AWS. `docs/security.md` says what each part proves and
//! how to run its large form.

#![expect(clippy::cast_possible_truncation, reason = "bits of digests and bytes of base64, on 64-bit machines")]

mod cloud;
mod lake;
mod records;
mod rules;
mod search;

mod bombs;
mod marks;
mod paths;
mod secrets;
