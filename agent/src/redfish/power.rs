//! Power states and reset types: what is read as what, and which reset type serves which order.

use crate::bmc::{Ask, Reading};

/// Why a `PowerState` is not a reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PowerStateError {
    /// Absent or null: OpenBMC leaves it out when its own bus fails. Never Off.
    #[error("the system has no PowerState")]
    Absent,
    /// Not one of the values of the schema.
    #[error("the system has the unknown PowerState {0:?}")]
    Unknown(String),
}

/// Reads `PowerState` (Resource v1 `PowerState`).
///
/// # Errors
/// Anything but the five known values.
pub fn reading(power_state: Option<&str>) -> Result<Reading, PowerStateError> {
    match power_state {
        Some("On") => Ok(Reading::On),
        Some("Off") => Ok(Reading::Off),
        Some("PoweringOn" | "PoweringOff" | "Paused") => Ok(Reading::Transitioning),
        Some(other) => Err(PowerStateError::Unknown(other.chars().take(40).collect())),
        None => Err(PowerStateError::Absent),
    }
}

/// Reset types that serve an order, the best first. Graceful never becomes force, nor the reverse.
#[must_use]
pub const fn ladder(ask: Ask) -> &'static [&'static str] {
    match ask {
        Ask::Status | Ask::Identify { .. } | Ask::Bootdev { .. } | Ask::Inspect | Ask::TryLogin | Ask::SetPassword => &[],
        Ask::Diag => &["Nmi"],
        Ask::On => &["On", "ForceOn"],
        Ask::Off => &["ForceOff"],
        Ask::Soft => &["GracefulShutdown"],
        Ask::Reset => &["ForceRestart"],
    }
}

/// No reset type of the ladder is offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the BMC offers no {wanted}; it allows {allowed}")]
pub struct NotOffered {
    wanted: String,
    allowed: String,
}

/// The reset type for `ask` out of what the BMC allows; a BMC that names nothing is asked for the first.
///
/// # Errors
/// [`NotOffered`], with what is allowed instead.
pub fn reset_type(ask: Ask, allowed: Option<&[String]>) -> Result<&'static str, NotOffered> {
    let ladder = ladder(ask);
    let chosen = match allowed {
        None => ladder.first(),
        Some(allowed) => ladder.iter().find(|wanted| allowed.iter().any(|offered| offered == *wanted)),
    };
    chosen.copied().ok_or_else(|| NotOffered { wanted: ladder.join(" or "), allowed: allowed.unwrap_or_default().join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_off_is_off() {
        for (text, expected) in [
            (Some("On"), Some(Reading::On)),
            (Some("Off"), Some(Reading::Off)),
            (Some("PoweringOn"), Some(Reading::Transitioning)),
            (Some("PoweringOff"), Some(Reading::Transitioning)),
            (Some("Paused"), Some(Reading::Transitioning)),
            (Some("off"), None),
            (Some(""), None),
            (Some("Offline"), None),
            (None, None),
        ] {
            assert_eq!(reading(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn graceful_and_force_never_mix() {
        let list = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let dell = list("On ForceOff ForceRestart GracefulShutdown PushPowerButton Nmi PowerCycle");
        let odd = list("ForceOn GracefulShutdown GracefulRestart PushPowerButton PowerCycle");
        for (ask, dell_type, odd_type) in [
            (Ask::On, Some("On"), Some("ForceOn")),
            (Ask::Off, Some("ForceOff"), None),
            (Ask::Soft, Some("GracefulShutdown"), Some("GracefulShutdown")),
            (Ask::Reset, Some("ForceRestart"), None),
            (Ask::Status, None, None),
        ] {
            assert_eq!(reset_type(ask, Some(&dell)).ok(), dell_type, "{ask:?}");
            assert_eq!(reset_type(ask, Some(&odd)).ok(), odd_type, "{ask:?}");
        }
        assert_eq!(reset_type(Ask::Off, None), Ok("ForceOff"), "nothing named: the standard's word");
        let refusal = reset_type(Ask::Off, Some(&odd)).unwrap_err().to_string();
        assert!(refusal.contains("no ForceOff") && refusal.contains("GracefulShutdown, GracefulRestart"), "{refusal}");
    }
}
