//! The plans of requests that come again: a bounded cache beside each device.
//!
//! Nobody waits for it. Who finds it locked makes the plan anew, which takes microseconds: so a
//! child forked while another thread held the lock goes on, and no call is slower than without.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use crate::{Error, Plan, Request};

/// Plans kept at most: more than the shapes that a server's batches take.
pub(crate) const CAPACITY: usize = 1024;

/// A kept plan.
struct Entry {
    /// [`PlanCache::clock`] when it was last asked for.
    used: AtomicU64,
    /// A [`Plan`] of some request.
    plan: Arc<dyn Any + Send + Sync>,
}

/// Plans for one device, found by the whole request; the least recently used one makes room.
#[derive(Default)]
pub(crate) struct PlanCache {
    /// By the request's hash. Of two requests with the same one the first is kept.
    entries: RwLock<HashMap<u64, Entry, BuildHasherDefault<Mixer>>>,
    /// Counts lookups.
    clock: AtomicU64,
}

impl fmt::Debug for PlanCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanCache").finish_non_exhaustive()
    }
}

impl PlanCache {
    /// The plan of `request`, made by `make` if it is not kept.
    ///
    /// # Errors
    /// Those of `make`, which is asked again the next time.
    pub(crate) fn get<R: Request>(
        &self,
        request: &R,
        make: impl FnOnce() -> Result<Plan<R>, Error>,
    ) -> Result<Arc<Plan<R>>, Error> {
        let hash = hash(request);
        if let Some(plan) = self.find(hash, request) {
            return Ok(plan);
        }
        let plan = Arc::new(make()?);
        self.keep(hash, &plan);
        Ok(plan)
    }

    fn find<R: Request>(&self, hash: u64, request: &R) -> Option<Arc<Plan<R>>> {
        let entries = self.entries.try_read().ok()?;
        let entry = entries.get(&hash)?;
        if entry.plan.downcast_ref::<Plan<R>>()?.request() != request {
            return None;
        }
        entry.used.store(self.now(), Ordering::Relaxed);
        entry.plan.clone().downcast().ok()
    }

    fn keep<R: Request>(&self, hash: u64, plan: &Arc<Plan<R>>) {
        let Ok(mut entries) = self.entries.try_write() else {
            return;
        };
        if entries.contains_key(&hash) {
            // Another thread made it at the same time.
            return;
        }
        if entries.len() >= CAPACITY {
            let last_use = |entry: &Entry| entry.used.load(Ordering::Relaxed);
            let oldest = entries.iter().min_by_key(|(_, entry)| last_use(entry));
            if let Some(hash) = oldest.map(|(hash, _)| *hash) {
                entries.remove(&hash);
            }
        }
        let used = AtomicU64::new(self.now());
        entries.insert(hash, Entry { used, plan: plan.clone() });
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
}

/// A number that differs for nearly all requests that differ.
fn hash<R: Request>(request: &R) -> u64 {
    let mut mixer = Mixer::default();
    TypeId::of::<R>().hash(&mut mixer);
    request.hash(&mut mixer);
    mixer.finish()
}

/// Mixes words one by one: the multiplier is 2⁶⁴ divided by the golden ratio, which spreads near
/// numbers. Keys of the cache are such numbers already, and stay what they are.
#[derive(Default)]
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(word.into());
    }

    fn write_u8(&mut self, word: u8) {
        self.mix(word.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Instant;

    use crate::{DeviceFacts, Dtype, Forward, Layout, Mask};

    fn request(rows: usize) -> Forward {
        let layout = Layout::bshd(Dtype::Bf16, 2, rows, 4, 128);
        Forward::new(layout, layout, layout, layout, Mask::Causal).scale(0.5)
    }

    fn get(cache: &PlanCache, request: &Forward) -> Arc<Plan<Forward>> {
        cache.get(request, || Plan::new(request, &DeviceFacts::h200())).expect("a valid request")
    }

    fn len(cache: &PlanCache) -> usize {
        cache.entries.read().expect("nothing panics under the lock").len()
    }

    #[test]
    fn a_plan_is_made_once() {
        let cache = PlanCache::default();
        let first = get(&cache, &request(7));
        assert_eq!(*first, Plan::new(&request(7), &DeviceFacts::h200()).expect("valid"));
        let again = cache.get(&request(7), || panic!("it is kept")).expect("it is kept");
        assert!(Arc::ptr_eq(&first, &again));
        // Two threads that made it at the same time keep one.
        cache.keep(hash(&request(7)), &Arc::new(Plan::clone(&first)));
        assert_eq!(len(&cache), 1);
    }

    #[test]
    fn whatever_differs_has_a_plan_of_its_own() {
        let base = request(64);
        let mut all = vec![
            base.clone(),
            Forward { mask: Mask::Full, ..base.clone() },
            base.clone().with_lse(),
            Forward { scale: None, ..base.clone() },
            base.clone().scale(f32::from_bits(0.5_f32.to_bits() + 1)),
        ];
        for axis in 0..3 {
            let mut wide = base.clone();
            wide.q.strides[axis] += 1 << 20;
            all.push(wide);
            let mut wide = base.clone();
            wide.out.strides[axis] += 1 << 20;
            all.push(wide);
            let mut other = base.clone();
            other.k.strides[axis] += 1 << 20;
            all.push(other.clone());
            std::mem::swap(&mut other.k, &mut other.v);
            all.push(other);
        }
        let cache = PlanCache::default();
        for request in all.iter().chain(&all) {
            assert_eq!(get(&cache, request).request(), request);
        }
        assert_eq!(len(&cache), all.len());
        assert_eq!(all.iter().map(hash).collect::<HashSet<_>>().len(), all.len());
        // Nor would one be found whose hash is the same by chance.
        let found = |request: &Forward| cache.find(hash(&base), request);
        assert!(found(&base).is_some() && all[1..].iter().all(|other| found(other).is_none()));
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let cache = PlanCache::default();
        let kept = get(&cache, &request(1));
        for rows in 2..4 * CAPACITY {
            get(&cache, &request(rows));
            assert!(Arc::ptr_eq(&get(&cache, &request(1)), &kept));
        }
        assert_eq!(len(&cache), CAPACITY);
        let made = || Err(Error::WorkspaceStream);
        assert!(cache.get(&request(4 * CAPACITY - 1), made).is_ok());
        assert_eq!(cache.get(&request(2), made).err(), Some(Error::WorkspaceStream));
    }

    #[test]
    fn a_refusal_is_not_kept() {
        let cache = PlanCache::default();
        let wrong = Forward { scale: Some(f32::NAN), ..request(3) };
        for _ in 0..2 {
            let error = cache.get(&wrong, || Plan::new(&wrong, &DeviceFacts::h200()));
            assert!(matches!(error, Err(Error::Scale { .. })));
        }
        assert_eq!(len(&cache), 0);
    }

    #[test]
    fn nobody_waits_for_the_lock() {
        let cache = PlanCache::default();
        get(&cache, &request(5));
        let held = cache.entries.write().expect("nothing panics under the lock");
        assert_eq!(get(&cache, &request(5)).request(), &request(5));
        drop(held);
        assert_eq!(len(&cache), 1);
    }

    #[test]
    fn threads_get_the_plans_they_ask_for() {
        let cache = PlanCache::default();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let cache = &cache;
                scope.spawn(move || {
                    for step in 0..2000 {
                        // A hundred requests, some of them often.
                        let rows = 1 + step * (2 * thread + 1) % 100 % (step % 100 + 1);
                        assert_eq!(get(cache, &request(rows)).request(), &request(rows));
                    }
                });
            }
        });
        assert!(len(&cache) <= CAPACITY);
    }

    /// The best of many trials, because other processes take their share of some.
    #[test]
    fn a_lookup_costs_less_than_a_microsecond() {
        let cache = PlanCache::default();
        for rows in 1..=CAPACITY {
            get(&cache, &request(rows));
        }
        let last = request(CAPACITY);
        let best = |rows: usize, call: &dyn Fn(&Forward) -> Arc<Plan<Forward>>| {
            let trial = |_| {
                let start = Instant::now();
                for _ in 0..rows {
                    std::hint::black_box(call(std::hint::black_box(&last)));
                }
                start.elapsed().as_secs_f64() * 1e9 / rows as f64
            };
            (0..200).map(trial).fold(f64::INFINITY, f64::min)
        };
        let kept_ns = best(200, &|request| get(&cache, request));
        let facts = DeviceFacts::h200();
        let made_ns = best(20, &|request| Arc::new(Plan::new(request, &facts).expect("valid")));
        println!("a plan that is kept {kept_ns:.0} ns, one that is made {made_ns:.0} ns");
        assert!(kept_ns < 1000.0, "{kept_ns:.0} ns");
    }
}
