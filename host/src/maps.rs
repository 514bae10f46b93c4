//! Tensor maps that were encoded before: a plan's launches mostly find their tensors where they
//! were, and encoding a map takes the driver longer than finding it.
//!
//! As with plans, nobody waits: who finds the lock taken encodes anew.

use std::sync::Mutex;

use fulgurite_spec::TensorMap;

use crate::Error;

/// Places for maps at most, a power of two: those of a model's layers, of 144 bytes each.
const PLACES_MOST: usize = 256;

/// Places to begin with.
const PLACES_LEAST: usize = 8;

/// A map of a plan, encoded for an address.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Kept {
    /// Which of the plan's maps, and the address.
    key: (u32, u64),
    map: TensorMap,
}

/// The maps of one plan. Each has one place, by map and address, and takes it from the one that
/// was there; as long as there are few places, their number is doubled instead.
#[derive(Debug, Default)]
pub(crate) struct MapCache {
    places: Mutex<Vec<Option<Kept>>>,
}

impl MapCache {
    /// Map number `number` of the plan at `address`, encoded by `encode` if it is not kept.
    ///
    /// # Errors
    /// Those of `encode`.
    pub(crate) fn get(
        &self,
        number: u32,
        address: u64,
        encode: impl FnOnce() -> Result<TensorMap, Error>,
    ) -> Result<TensorMap, Error> {
        let key = (number, address);
        let Ok(mut places) = self.places.try_lock() else {
            return encode();
        };
        if places.is_empty() {
            places.resize(PLACES_LEAST, None);
        }
        match places[place(key, places.len())] {
            Some(kept) if kept.key == key => return Ok(kept.map),
            Some(_) if places.len() < PLACES_MOST => grow(&mut places),
            _ => {}
        }
        let map = encode()?;
        let index = place(key, places.len());
        places[index] = Some(Kept { key, map });
        Ok(map)
    }
}

/// Where a map lies among `count` places.
fn place((number, address): (u32, u64), count: usize) -> usize {
    // Addresses are multiples of 16, often of large powers of two: the upper bits of the product
    // depend on all of them.
    let mixed = (address ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) as usize & (count - 1)
}

/// Doubles the places.
fn grow(places: &mut Vec<Option<Kept>>) {
    let kept: Vec<Kept> = places.iter().copied().flatten().collect();
    let count = 2 * places.len();
    places.clear();
    places.resize(count, None);
    for one in kept {
        let index = place(one.key, count);
        places[index] = Some(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Asks for a map that tells what it was made for; returns whether it was made now.
    fn made(cache: &MapCache, number: u32, address: u64) -> bool {
        let want = TensorMap([address + u64::from(number); 16]);
        let asked = Cell::new(false);
        let got = cache.get(number, address, || {
            asked.set(true);
            Ok(want)
        });
        assert_eq!(got, Ok(want));
        asked.get()
    }

    #[test]
    fn a_map_is_encoded_once() {
        let cache = MapCache::default();
        assert!(made(&cache, 0, 0x1000) && made(&cache, 1, 0x1000) && made(&cache, 0, 0x2000));
        assert!(!made(&cache, 0, 0x1000) && !made(&cache, 1, 0x1000) && !made(&cache, 0, 0x2000));
    }

    #[test]
    fn the_maps_of_a_models_layers_stay() {
        let cache = MapCache::default();
        // 32 layers whose k and v lie in one allocation; q is where it always is.
        let layers = || {
            (0..32).flat_map(|layer| {
                [(0, 1 << 30), (1, (2 * layer + 2) << 21), (2, (2 * layer + 3) << 21)]
            })
        };
        for (number, address) in layers() {
            made(&cache, number, address);
        }
        let again = layers().filter(|&(number, address)| made(&cache, number, address)).count();
        assert!(again <= 16, "{again} of 96 were made again");
    }

    #[test]
    fn any_number_of_addresses_is_served() {
        let cache = MapCache::default();
        for round in 0..2_u64 {
            for step in 0..5000_u64 {
                made(&cache, (step % 3) as u32, (round * 7 + step) << 8);
            }
        }
        assert!(cache.places.lock().is_ok_and(|places| places.len() == PLACES_MOST));
    }

    #[test]
    fn an_error_is_not_kept_and_nobody_waits() {
        let cache = MapCache::default();
        let refused = || Err(Error::WorkspaceStream);
        assert_eq!(cache.get(0, 16, refused), refused());
        assert!(made(&cache, 0, 16));
        let held = cache.places.lock().expect("nothing panics under the lock");
        assert!(made(&cache, 0, 16));
        drop(held);
        assert!(!made(&cache, 0, 16));
    }
}
