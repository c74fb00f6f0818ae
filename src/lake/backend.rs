//! What every kind of lake does for the configuration and the commands.
//!
//! Owns: the trait. Does not own: the kinds (`backends`), reading and writing objects (`ObjectStore`).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use crate::aws::permissions::Trials;
use crate::aws::{Aws, Created};
use crate::diagnosis::Diagnosis;
use crate::lake::{LakeError, ObjectStore};

/// A kind of lake, by the URL of one lake. `Options` has the options of all kinds; each kind reads its own.
#[async_trait]
pub trait LakeBackend<Options>: fmt::Display + Send + Sync {
    /// Its name in messages and in the documentation.
    fn name(&self) -> &'static str;

    /// The folder of a lake on this machine. Checkpoints and the pseudonym key then have a default place.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// The URL by which a catalogue finds the lake.
    fn catalog_url(&self) -> String {
        self.to_string()
    }

    /// Whether opening it needs the SDK's settings.
    fn needs_aws(&self) -> bool {
        false
    }

    /// Checks that the lake can be there. Asks no service.
    ///
    /// # Errors
    /// A sentence for the user.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Checks the options of this kind of lake.
    ///
    /// # Errors
    /// A sentence for the user.
    fn check_options(&self, _: &Options) -> Result<(), String> {
        Ok(())
    }

    /// Opens the lake for writing. It is made if it does not exist, unless it is `known` to exist.
    async fn open(&self, options: &Options, aws: Option<&Aws>, known: bool) -> Result<Arc<dyn ObjectStore>, LakeError>;

    /// Opens the lake for reading; `None` if it does not exist.
    async fn open_existing(
        &self,
        options: &Options,
        aws: Option<&Aws>,
    ) -> Result<Option<Arc<dyn ObjectStore>>, LakeError>;

    /// Tries the actions that a worker needs.
    async fn try_permissions(&self, _: &Aws, _: &Options, _: &mut Trials) {}

    /// Notes what is wrong with what the lake is in: a bucket, a disk. Changes nothing.
    async fn diagnose(&self, _: &Options, _: Option<&Aws>, _: &mut Diagnosis) {}

    /// Makes what the lake is in, for a development account, if it does not exist. `None`: there is nothing to make.
    ///
    /// # Errors
    /// A sentence for the user.
    async fn create(&self, _: &Aws, _: &Options) -> Result<Option<Created>, String> {
        Ok(None)
    }
}
