//! Where CPU-bound work runs: on dedicated threads, or in place where a test needs every step in order.
//!
//! Owns: the threads. Does not own: the work.
//!
//! Why not tokio's blocking pool: it grows while files and databases keep it busy, so a lane's work would run on many
//! threads. Most allocators keep memory for each thread that the other threads cannot use.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::task::JoinError;

type Work = Box<dyn FnOnce() + Send>;

/// Runs closures.
#[derive(Debug, Clone)]
pub enum Compute {
    /// On dedicated threads. They end when the last clone is dropped.
    Threads(Sender<Work>),
    /// In place, before the caller continues.
    Inline,
}

impl Compute {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// The operating system refuses to start a thread.
    pub fn on_threads(count: usize) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..count {
            let receiver = Arc::clone(&receiver);
            std::thread::Builder::new().name(format!("lane-{number}")).spawn(move || run_all(&receiver))?;
        }
        Ok(Compute::Threads(sender))
    }

    /// Runs `work` and returns its result.
    ///
    /// # Panics
    /// If `work` panics: the state of a stage that panicked can't be trusted.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let threads = match self {
            Compute::Inline => return work(),
            Compute::Threads(threads) => threads,
        };
        let (done, result) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
        let sent = threads.send(Box::new(move || {
            // A worker that is stopped at once does not wait for the result.
            let _ = done.send(std::panic::catch_unwind(AssertUnwindSafe(work)));
        }));
        match (sent, result.await) {
            (Ok(()), Ok(Ok(value))) => value,
            (_, Ok(Err(panic))) => std::panic::resume_unwind(panic),
            // The threads live as long as this sender, and answer everything.
            (_, _) => unreachable!("the threads that run lanes are gone"),
        }
    }
}

/// Runs one piece of work after the other until all senders are gone.
fn run_all(receiver: &Mutex<Receiver<Work>>) {
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(work) => work(),
            Err(_) => return,
        }
    }
}

/// The result of a task. If the task panicked, the panic continues here.
pub(super) fn joined<T>(result: Result<T, JoinError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("a task of the worker was cancelled: {error}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn results_and_panics_of_the_work_come_back_from_threads_and_in_place() {
        for compute in [Compute::Inline, Compute::on_threads(2).unwrap()] {
            let running: Vec<_> = (0..20)
                .map(|n| {
                    let compute = compute.clone();
                    tokio::spawn(async move { compute.run(move || n * n).await })
                })
                .collect();
            for (n, done) in running.into_iter().enumerate() {
                assert_eq!(done.await.unwrap(), n * n);
            }
            let failing = compute.clone();
            let panicked = tokio::spawn(async move { failing.run(|| panic!("on purpose")).await }).await;
            assert!(panicked.unwrap_err().is_panic());
            assert_eq!(compute.run(|| "still running").await, "still running");
        }
    }
}
