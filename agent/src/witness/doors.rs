//! Who may be connected at once: so many in all, and few from one address, so that nobody without a certificate can keep the
//! agents out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Most connections at once.
pub(super) const MOST: usize = 256;
/// Most of them from one address.
pub(super) const FROM_ONE: usize = 16;

/// Counts those inside.
#[derive(Debug, Clone, Default)]
pub(super) struct Doors(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// The right to be inside, until it is dropped.
#[derive(Debug)]
pub(super) struct Inside {
    doors: Doors,
    from: IpAddr,
}

impl Doors {
    /// Lets one in, if there is room.
    pub(super) fn enter(&self, from: IpAddr) -> Option<Inside> {
        let from = from.to_canonical();
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.values().sum::<usize>() >= MOST || inside.get(&from).is_some_and(|count| *count >= FROM_ONE) {
            return None;
        }
        *inside.entry(from).or_default() += 1;
        drop(inside);
        Some(Inside { doors: self.clone(), from })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut inside = self.doors.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = inside.get_mut(&self.from) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inside.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_fill_the_house() {
        let doors = Doors::default();
        let from = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut inside: Vec<Inside> = (0..FROM_ONE).map(|_| doors.enter(from(1)).unwrap()).collect();
        assert!(doors.enter(from(1)).is_none() && doors.enter("::ffff:10.0.0.1".parse().unwrap()).is_none());
        for n in 2.. {
            let more: Vec<Inside> = (0..FROM_ONE).map_while(|_| doors.enter(from(n))).collect();
            if more.is_empty() {
                break;
            }
            inside.extend(more);
        }
        assert_eq!(inside.len(), MOST);
        drop(inside);
        assert!(doors.0.lock().unwrap().is_empty());
        assert!(doors.enter(from(1)).is_some());
    }
}
