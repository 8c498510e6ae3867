//! One measurement, and what several of them say.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Serialize, Serializer};

use super::cpu::{Cores, Used};
use super::simulator::{Counters, Simulator};

/// What one client did in one stretch of time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    /// Power states read, by the simulator's count.
    pub polls: u32,
    /// Logins for them.
    pub logins: u32,
    /// Time that passed.
    #[serde(rename = "wall_ns", serialize_with = "nanoseconds")]
    pub wall: Duration,
    /// CPU time of the client.
    #[serde(rename = "client_cpu_ns", serialize_with = "nanoseconds")]
    pub client: Duration,
    /// CPU time of the simulator.
    #[serde(rename = "simulator_cpu_ns", serialize_with = "nanoseconds")]
    pub simulator: Duration,
    /// Share of all cores that was busy, with whatever.
    pub machine_busy: f64,
}

fn nanoseconds<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u128(value.as_nanos())
}

impl Sample {
    /// The client's CPU time for one poll, in seconds.
    pub fn cpu_per_poll(&self) -> f64 {
        self.client.as_secs_f64() / f64::from(self.polls)
    }

    /// Time per poll, in seconds.
    pub fn wall_per_poll(&self) -> f64 {
        self.wall.as_secs_f64() / f64::from(self.polls)
    }

    /// The simulator's CPU time for one poll, in seconds.
    pub fn simulator_per_poll(&self) -> f64 {
        self.simulator.as_secs_f64() / f64::from(self.polls)
    }

    /// How much of one core the client used.
    pub fn client_busy(&self) -> f64 {
        self.client.as_secs_f64() / self.wall.as_secs_f64()
    }

    /// How much of one core the simulator used.
    pub fn simulator_busy(&self) -> f64 {
        self.simulator.as_secs_f64() / self.wall.as_secs_f64()
    }
}

/// A measurement under way.
pub struct Watch<'a> {
    simulator: &'a Simulator,
    counters: Counters,
    used: Used,
    cores: Cores,
    began: Instant,
}

impl<'a> Watch<'a> {
    /// Begins now.
    pub fn begin(simulator: &'a Simulator) -> Result<Self> {
        let counters = simulator.counters()?;
        Ok(Self { simulator, counters, used: simulator.used()?, cores: Cores::now()?, began: super::now() })
    }

    /// What was counted since the beginning: power states read, logins.
    pub fn counted(&self) -> Result<(u32, u32)> {
        let now = self.simulator.counters()?;
        Ok((now.status_reads - self.counters.status_reads, now.logins - self.counters.logins))
    }

    /// Ends now; `client` gives the CPU time that the client used.
    pub fn end(self, client: impl FnOnce() -> Result<Duration>) -> Result<Sample> {
        let wall = self.began.elapsed();
        let client = client()?;
        let simulator = self.simulator.used()?.since(&self.used);
        let machine_busy = Cores::now()?.busy_since(self.cores);
        let (polls, logins) = self.counted()?;
        ensure!(polls > 0, "the simulator was not read once");
        Ok(Sample { polls, logins, wall, client, simulator, machine_busy })
    }
}

/// Median, least and most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle value, or the mean of the two in the middle.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Most.
    pub max: f64,
}

impl Spread {
    /// Of `values`; none when there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let middle = |at: usize| sorted.get(at).copied();
        let (low, high) = (middle(sorted.len().checked_sub(1)? / 2)?, middle(sorted.len() / 2)?);
        Some(Self { median: f64::midpoint(low, high), min: *sorted.first()?, max: *sorted.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let median = |values: &[f64]| Spread::of(values.iter().copied()).map(|spread| spread.median);
        for (values, wanted) in
            [(&[][..], None), (&[4.0][..], Some(4.0)), (&[4.0, 1.0][..], Some(2.5)), (&[9.0, 1.0, 4.0][..], Some(4.0))]
        {
            assert_eq!(median(values), wanted, "{values:?}");
        }
    }
}
