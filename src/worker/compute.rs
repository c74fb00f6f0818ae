//! Where work of the processor runs: on the blocking pool, or at once, where a test wants every step in order.

/// Runs closures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compute {
    /// On tokio's blocking pool.
    Threads,
    /// In place, before anything else happens.
    Inline,
}

impl Compute {
    /// Runs `work` and gives its result.
    ///
    /// # Panics
    /// If `work` does: a stage that panics has no state that could be trusted.
    pub(crate) async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Compute::Inline => work(),
            Compute::Threads => match tokio::task::spawn_blocking(work).await {
                Ok(result) => result,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => std::future::pending().await,
                },
            },
        }
    }
}
