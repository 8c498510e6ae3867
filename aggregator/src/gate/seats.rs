//! How many connections there may be: in all, from one address, and before they have shown who they are. Counts only.
//!
//! A connection that has not proved itself is worth little, so there may be few of them from one address: a host that opens
//! sockets and says nothing takes only its own share, and for seconds only.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Caps of [`Seats`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caps {
    pub total: usize,
    pub per_address: usize,
    pub unproved: usize,
    pub unproved_per_address: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    all: usize,
    unproved: usize,
}

#[derive(Debug, Default)]
struct Counts {
    total: Count,
    by_address: HashMap<IpAddr, Count>,
}

/// The count of connections.
#[derive(Debug, Clone)]
pub(crate) struct Seats {
    caps: Caps,
    counts: Arc<Mutex<Counts>>,
}

/// One connection's place in the count, given up on drop.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Seats,
    address: IpAddr,
    proved: bool,
}

/// Which cap was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("too many connections")]
    Total,
    #[error("too many connections from this address")]
    Address,
    #[error("too many connections that have not proved who they are")]
    Unproved,
    #[error("too many connections from this address that have not proved who they are")]
    UnprovedAddress,
}

impl Seats {
    pub(crate) fn new(caps: Caps) -> Self {
        Self { caps, counts: Arc::default() }
    }

    /// A seat for a connection from `address`.
    pub(crate) fn take(&self, address: IpAddr) -> Result<Seat, Full> {
        let address = neighbourhood(address);
        let mut counts = self.lock();
        let there = counts.by_address.get(&address).copied().unwrap_or_default();
        for (reached, full) in [
            (there.unproved >= self.caps.unproved_per_address, Full::UnprovedAddress),
            (there.all >= self.caps.per_address, Full::Address),
            (counts.total.unproved >= self.caps.unproved, Full::Unproved),
            (counts.total.all >= self.caps.total, Full::Total),
        ] {
            if reached {
                return Err(full);
            }
        }
        counts.total = Count { all: counts.total.all + 1, unproved: counts.total.unproved + 1 };
        counts.by_address.insert(address, Count { all: there.all + 1, unproved: there.unproved + 1 });
        Ok(Seat { seats: self.clone(), address, proved: false })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The connection has shown a certificate of ours.
    pub(crate) fn proved(&mut self) {
        if !std::mem::replace(&mut self.proved, true) {
            self.change(|count| count.unproved -= 1);
        }
    }

    fn change(&self, change: impl Fn(&mut Count)) {
        let mut counts = self.seats.lock();
        change(&mut counts.total);
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            change(count);
            if count.all == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.change(|count| {
            count.all -= 1;
            count.unproved -= usize::from(!self.proved);
        });
    }
}

/// An IPv6 host has a whole /64 to speak from.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn caps_hold_and_seats_come_back() {
        let seats = Seats::new(Caps { total: 6, per_address: 3, unproved: 3, unproved_per_address: 2 });
        let (a, b, c) = (address("10.0.0.1"), address("10.0.0.2"), address("10.0.0.3"));
        let mut first = seats.take(a).unwrap();
        let mut second = seats.take(a).unwrap();
        assert_eq!(seats.take(a).unwrap_err(), Full::UnprovedAddress);
        first.proved();
        first.proved();
        let mut third = seats.take(a).unwrap();
        second.proved();
        third.proved();
        assert_eq!(seats.take(a).unwrap_err(), Full::Address);
        let others = [seats.take(b).unwrap(), seats.take(b).unwrap(), seats.take(c).unwrap()];
        assert_eq!(seats.take(c).unwrap_err(), Full::Unproved);
        for mut seat in others {
            seat.proved();
            std::mem::forget(seat);
        }
        assert_eq!(seats.take(c).unwrap_err(), Full::Total);
        drop((first, second, third));
        assert!(!seats.lock().by_address.contains_key(&a), "an address is forgotten with its last connection");
        seats.take(a).unwrap();
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        assert_eq!(neighbourhood(address("2001:db8::1")), neighbourhood(address("2001:db8::ffff:2")));
        assert_ne!(neighbourhood(address("2001:db8:0:1::1")), neighbourhood(address("2001:db8::1")));
        assert_eq!(neighbourhood(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }
}
