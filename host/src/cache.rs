//! The plans of requests that come again: a bounded cache beside each device.
//!
//! Nobody waits for it. Who finds it locked makes the plan anew, which takes microseconds: so a
//! child forked while another thread held the lock goes on, and no call is slower than without.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use crate::{Error, Forward, Layout, Plan};

/// Plans kept at most: more than the shapes of a model's layers, few enough to look through.
pub(crate) const CAPACITY: usize = 64;

/// A kept plan, with what is looked at first.
#[derive(Debug)]
struct Entry {
    hash: u64,
    /// [`PlanCache::clock`] when it was last asked for.
    used: AtomicU64,
    plan: Arc<Plan>,
}

impl Entry {
    fn last_use(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// Plans for one device, found by the whole request; the least recently used one makes room.
#[derive(Debug, Default)]
pub(crate) struct PlanCache {
    entries: RwLock<Vec<Entry>>,
    /// Counts lookups.
    clock: AtomicU64,
}

impl PlanCache {
    /// The plan of `request`, made by `make` if it is not kept.
    ///
    /// # Errors
    /// Those of `make`, which is asked again the next time.
    pub(crate) fn get(
        &self,
        request: &Forward,
        make: impl FnOnce() -> Result<Plan, Error>,
    ) -> Result<Arc<Plan>, Error> {
        let hash = hash(request);
        if let Some(plan) = self.find(hash, request) {
            return Ok(plan);
        }
        let plan = Arc::new(make()?);
        self.keep(hash, &plan);
        Ok(plan)
    }

    fn find(&self, hash: u64, request: &Forward) -> Option<Arc<Plan>> {
        let entries = self.entries.try_read().ok()?;
        let entry = entries
            .iter()
            .find(|entry| entry.hash == hash && same(entry.plan.request(), request))?;
        entry.used.store(self.now(), Ordering::Relaxed);
        Some(entry.plan.clone())
    }

    fn keep(&self, hash: u64, plan: &Arc<Plan>) {
        let Ok(mut entries) = self.entries.try_write() else {
            return;
        };
        // Another thread may have made it at the same time.
        if entries.iter().any(|entry| entry.hash == hash && entry.plan == *plan) {
            return;
        }
        let entry = Entry { hash, used: AtomicU64::new(self.now()), plan: plan.clone() };
        if entries.len() < CAPACITY {
            entries.push(entry);
        } else if let Some(oldest) = entries.iter_mut().min_by_key(|entry| entry.last_use()) {
            *oldest = entry;
        }
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
}

/// Whether two requests agree in every bit, that of the scale included.
fn same(a: &Forward, b: &Forward) -> bool {
    a.scale.map(f32::to_bits) == b.scale.map(f32::to_bits)
        && (a.mask, a.lse) == (b.mask, b.lse)
        && [a.q, a.k, a.v, a.out] == [b.q, b.k, b.v, b.out]
}

/// A number that differs for nearly all requests that differ.
fn hash(request: &Forward) -> u64 {
    let Forward { q, k, v, out, mask, scale, lse } = request;
    // The tensors' chains of multiplications run side by side.
    let tensors = [q, k, v, out].map(hash_layout);
    let scale = scale.map_or(u64::MAX, |scale| u64::from(scale.to_bits()));
    let options = (*mask as u64) << 1 | u64::from(*lse);
    tensors.into_iter().chain([scale, options]).fold(0, mix)
}

fn hash_layout(layout: &Layout) -> u64 {
    let sizes = layout.shape.iter().chain(&layout.strides).map(|size| *size as u64);
    sizes.fold(layout.dtype as u64, mix)
}

/// Adds a word: the multiplier is 2⁶⁴ divided by the golden ratio, which spreads near numbers.
fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Instant;

    use crate::{DeviceFacts, Dtype, Mask};

    fn request(rows: usize) -> Forward {
        let layout = Layout::bshd(Dtype::Bf16, 2, rows, 4, 128);
        let [q, k, v, out] = [layout; 4];
        Forward { q, k, v, out, mask: Mask::Causal, scale: Some(0.5), lse: false }
    }

    fn get(cache: &PlanCache, request: &Forward) -> Arc<Plan> {
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
            base,
            Forward { mask: Mask::Full, ..base },
            Forward { lse: true, ..base },
            Forward { scale: None, ..base },
            Forward { scale: Some(f32::from_bits(0.5_f32.to_bits() + 1)), ..base },
        ];
        for axis in 0..3 {
            let mut wide = base;
            wide.q.strides[axis] += 1 << 20;
            all.push(wide);
            let mut wide = base;
            wide.out.strides[axis] += 1 << 20;
            all.push(wide);
            let mut other = base;
            other.k.strides[axis] += 1 << 20;
            all.push(other);
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
        for rows in 2..10 * CAPACITY {
            get(&cache, &request(rows));
            assert!(Arc::ptr_eq(&get(&cache, &request(1)), &kept));
        }
        assert_eq!(len(&cache), CAPACITY);
        let made = || Err(Error::LseUnexpected);
        assert!(cache.get(&request(10 * CAPACITY - 1), made).is_ok());
        assert_eq!(cache.get(&request(2), made), Err(Error::LseUnexpected));
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
        let plans = cache.entries.read().expect("nothing panics under the lock");
        let kept: HashSet<usize> =
            plans.iter().map(|entry| entry.plan.request().q.rows()).collect();
        assert_eq!(kept.len(), plans.len(), "a plan is kept twice");
    }

    /// The best of many trials, because other processes take their share of some.
    #[test]
    fn a_lookup_costs_less_than_a_microsecond() {
        let cache = PlanCache::default();
        for rows in 1..=CAPACITY {
            get(&cache, &request(rows));
        }
        let last = request(CAPACITY);
        let best = |rows: usize, call: &dyn Fn(&Forward) -> Arc<Plan>| {
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
