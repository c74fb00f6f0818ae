//! Policies of CloudFormation templates, evaluated as IAM evaluates them, for tests.
//!
//! Owns: reading a template (`template`), resolving its functions for given parameters, and the decision about a request
//! (`policy`). Does not own: which requests there are (`tests/support/aws_model`), the templates (`deploy/`), any code of the product.
//!
//! What a template uses and this crate does not know is an error, never ignored: an unknown function, an unknown operator of a
//! condition, an unknown element of a statement.

pub mod policy;
pub mod template;
mod yaml;

pub use policy::{Grant, Policy, Request};
pub use template::Template;
