//! Where passwords are hashed: one at a time, on a thread of its own, so that log-ins cannot starve the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::AuthError;

/// Who may wait for their turn, and for how long.
const MAX_WAITING: usize = 8;
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The turn that everybody waits for.
pub(crate) struct Hashing {
    turn: Arc<Semaphore>,
    /// Those who wait, and the one whose turn it is.
    inside: Arc<AtomicUsize>,
}

/// A place inside; given back when it is dropped.
struct Inside(Arc<AtomicUsize>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Hashing {
    pub(super) fn new() -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
            inside: Arc::default(),
        }
    }

    /// Runs `work`, which hashes, when it is its turn.
    ///
    /// # Errors
    /// [`AuthError::Busy`] when too many wait or it takes too long; `work` is not run then.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuthError> {
        let inside = Inside(Arc::clone(&self.inside));
        if self.inside.fetch_add(1, Ordering::SeqCst) > MAX_WAITING {
            return Err(AuthError::Busy);
        }
        let turn = timeout(MAX_WAIT, Arc::clone(&self.turn).acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            return Err(AuthError::Busy);
        };
        let (done, result) = oneshot::channel();
        // The thread ends with the work, and its memory with it. Both are nothing beside a hash.
        let started = std::thread::Builder::new()
            .name(String::from("edgeweb-hash"))
            .spawn(move || {
                let _inside = inside;
                let _turn = turn;
                // Whoever asked may have gone away since.
                let _ = done.send(work());
            });
        started.map_err(|_| AuthError::Busy)?;
        // Without a result, the work has panicked.
        result.await.map_err(|_| AuthError::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn one_works_eight_wait_and_the_next_is_sent_away() {
        let hashing = Arc::new(Hashing::new());
        let running = Arc::new(AtomicUsize::new(0));
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(std::sync::Mutex::new(released));
        let start = || {
            let (hashing, running, released) = (
                Arc::clone(&hashing),
                Arc::clone(&running),
                Arc::clone(&released),
            );
            thread::spawn(move || {
                block_on(hashing.run(move || {
                    assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                    let _ = released.lock().unwrap().recv();
                    running.fetch_sub(1, Ordering::SeqCst);
                }))
            })
        };
        let threads: Vec<_> = (0..=MAX_WAITING).map(|_| start()).collect();
        while hashing.inside.load(Ordering::SeqCst) <= MAX_WAITING {
            thread::yield_now();
        }
        assert!(matches!(block_on(hashing.run(|| ())), Err(AuthError::Busy)));
        for _ in 0..=MAX_WAITING {
            release.send(()).unwrap();
        }
        for thread in threads {
            assert!(thread.join().unwrap().is_ok());
        }
        assert!(block_on(hashing.run(|| ())).is_ok());
        while hashing.inside.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn work_that_panics_does_not_take_the_turn_with_it() {
        let hashing = Hashing::new();
        let panicked = block_on(hashing.run(|| panic!("on purpose")));
        assert!(matches!(panicked, Err(AuthError::Busy)));
        assert_eq!(block_on(hashing.run(|| 1)).ok(), Some(1));
    }
}
