//! Where work of the processor runs: on threads of its own, or at once, where a test wants every step in order.
//!
//! Why not tokio's blocking pool: it grows as files and databases keep it busy, a lane's work would wander over all its
//! threads, and with most allocators each of them keeps memory of its own that the others can't use.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

type Work = Box<dyn FnOnce() + Send>;

/// Runs closures.
#[derive(Debug, Clone)]
pub enum Compute {
    /// On threads, which end when the last clone is dropped.
    Threads(Sender<Work>),
    /// In place, before anything else happens.
    Inline,
}

impl Compute {
    /// Starts so many threads.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn on_threads(count: usize) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..count {
            let receiver = Arc::clone(&receiver);
            std::thread::Builder::new().name(format!("lane-{number}")).spawn(move || work_off(&receiver))?;
        }
        Ok(Compute::Threads(sender))
    }

    /// Runs `work` and gives its result.
    ///
    /// # Panics
    /// If `work` does: a stage that panics has no state that could be trusted.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let threads = match self {
            Compute::Inline => return work(),
            Compute::Threads(threads) => threads,
        };
        let (done, result) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
        let sent = threads.send(Box::new(move || {
            // Nobody may listen any more, when the worker is told to stop at once.
            let _ = done.send(std::panic::catch_unwind(AssertUnwindSafe(work)));
        }));
        match (sent, result.await) {
            (Ok(()), Ok(Ok(value))) => value,
            (_, Ok(Err(panic))) => std::panic::resume_unwind(panic),
            // The threads live as long as this sender does, and send an answer to everything.
            (_, _) => unreachable!("the threads that run lanes are gone"),
        }
    }
}

/// Takes work, one piece at a time, until there can be no more.
fn work_off(receiver: &Mutex<Receiver<Work>>) {
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(work) => work(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_wherever_it_runs_and_panics_come_back() {
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
            let panicked = tokio::spawn(async move { failing.run(|| panic!("a stage is broken")).await }).await;
            assert!(panicked.unwrap_err().is_panic());
            assert_eq!(compute.run(|| "still here").await, "still here");
        }
    }
}
