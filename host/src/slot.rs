//! A place for something that takes long to make and is made once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What is in a place.
#[derive(Debug)]
enum State<T> {
    Empty,
    /// A thread is making it, without holding the lock.
    Making,
    Made(T),
}

/// A value that the first thread to need it makes; those that need it meanwhile wait for that
/// one. While it is made no lock is held, so that nobody else waits.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    state: Mutex<State<T>>,
    /// A value was made, or could not be.
    changed: Condvar,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot { state: Mutex::new(State::Empty), changed: Condvar::new() }
    }
}

impl<T: Copy> Slot<T> {
    /// The value, made by `make` if there is none or not one that `serves`.
    ///
    /// # Errors
    /// Those of `make`; each thread that waited tries for itself then.
    pub(crate) fn get<E>(
        &self,
        serves: impl Fn(&T) -> bool,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = self.lock();
        loop {
            match &*state {
                State::Made(value) if serves(value) => return Ok(*value),
                State::Making => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                State::Empty | State::Made(_) => break,
            }
        }
        *state = State::Making;
        drop(state);
        let mut making = Making { slot: self, made: None };
        let value = make()?;
        making.made = Some(value);
        Ok(value)
    }

    /// A panic cannot leave the state half written: it is assigned whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the making however it ends, by an error or a panic too.
struct Making<'a, T: Copy> {
    slot: &'a Slot<T>,
    made: Option<T>,
}

impl<T: Copy> Drop for Making<'_, T> {
    fn drop(&mut self) {
        *self.slot.lock() = self.made.map_or(State::Empty, State::Made);
        self.slot.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    #[test]
    fn threads_that_want_the_same_make_it_once() {
        let (slot, made) = (Slot::default(), AtomicU32::new(0));
        let threads = 8;
        let together = Barrier::new(threads);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    together.wait();
                    let value = slot.get(
                        |_| true,
                        || {
                            thread::sleep(std::time::Duration::from_millis(20));
                            Ok::<_, Infallible>(made.fetch_add(1, Ordering::SeqCst))
                        },
                    );
                    assert_eq!(value, Ok(0));
                });
            }
        });
    }

    #[test]
    fn an_error_or_a_panic_leaves_the_place_free() {
        let slot = Slot::default();
        assert_eq!(slot.get(|_| true, || Err("no")), Err("no"));
        let panics = || slot.get(|_| true, || -> Result<u32, &str> { panic!("on purpose") });
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert_eq!(slot.get(|_| true, || Ok::<_, &str>(3)), Ok(3));
        assert_eq!(slot.get(|_| true, || Err("not called")), Ok(3));
    }

    #[test]
    fn what_does_not_serve_is_made_anew() {
        let slot = Slot::default();
        for life in [1, 1, 2, 2] {
            assert_eq!(slot.get(|made| *made == life, || Ok::<_, Infallible>(life)), Ok(life));
        }
    }
}
