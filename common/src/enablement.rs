//! Which hosts may be touched: three independent gates, zone AND cluster AND host. Flags never cascade into one another.

use serde::{Deserialize, Serialize};

use crate::command::Refusal;

/// The three gates of one host, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gates {
    /// The zone's flag; absent = enabled.
    pub zone: Option<bool>,
    /// The cluster's flag; absent = enabled.
    pub cluster: Option<bool>,
    /// The host's own flag; absent = disabled.
    pub host: Option<bool>,
}

impl Gates {
    /// Whether the host may be touched, or the first gate that says no: zone, then cluster, then host.
    ///
    /// # Errors
    /// `zone-disabled`, `cluster-disabled`, `host-disabled`.
    pub const fn resolve(self) -> Result<(), Refusal> {
        match self {
            Self { zone: Some(false), .. } => Err(Refusal::ZoneDisabled),
            Self { cluster: Some(false), .. } => Err(Refusal::ClusterDisabled),
            Self { host: None | Some(false), .. } => Err(Refusal::HostDisabled),
            Self { host: Some(true), .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_twenty_seven() {
        let flags = [None, Some(false), Some(true)];
        for zone in flags {
            for cluster in flags {
                for host in flags {
                    let wanted = if zone == Some(false) {
                        Err(Refusal::ZoneDisabled)
                    } else if cluster == Some(false) {
                        Err(Refusal::ClusterDisabled)
                    } else if host == Some(true) {
                        Ok(())
                    } else {
                        Err(Refusal::HostDisabled)
                    };
                    assert_eq!(Gates { zone, cluster, host }.resolve(), wanted);
                }
            }
        }
    }
}
