//! Scenarios: faults and power changes by the clock, from a TOML or JSON file.
//!
//! ```toml
//! [[step]]
//! at_ms = 5000
//! select = "bmc-00*"
//! faults = { unplug = "silent" }
//!
//! [[step]]
//! at_ms = 20000
//! select = "all"
//! clear = true
//! power = "off"
//! ```

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::faults::Faults;
use super::fleet::Fleet;

/// Why a scenario could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file.
    #[error("cannot read the scenario")]
    Read(#[from] std::io::Error),
    /// TOML.
    #[error("the scenario is not right")]
    Toml(#[from] toml::de::Error),
    /// JSON.
    #[error("the scenario is not right")]
    Json(#[from] serde_json::Error),
}

/// What happens when.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The steps, in any order.
    #[serde(default)]
    pub step: Vec<ScenarioStep>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioStep {
    /// Time since the start, ms.
    pub at_ms: u64,
    /// Which BMCs; see [`Fleet::select`].
    pub select: String,
    /// Mends everything first.
    #[serde(default)]
    pub clear: bool,
    /// Puts these faults in place.
    pub faults: Option<Faults>,
    /// `on`, `off` or `toggle`, by hand.
    pub power: Option<ScenarioPower>,
    /// Mains lost (false) or back (true).
    pub ac: Option<bool>,
}

/// A hand-made power change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScenarioPower {
    /// On.
    On,
    /// Off.
    Off,
    /// The other.
    Toggle,
}

impl Scenario {
    /// Reads a file; JSON when its name ends so, TOML otherwise.
    ///
    /// # Errors
    /// When it cannot be read or says what is not known.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path)?;
        if path.extension().is_some_and(|extension| extension == "json") {
            Ok(serde_json::from_str(&text)?)
        } else {
            Ok(toml::from_str(&text)?)
        }
    }

    /// Plays all steps at their times.
    pub(crate) async fn play(mut self, fleet: Fleet) {
        self.step.sort_by_key(|step| step.at_ms);
        let mut elapsed = 0;
        for step in self.step {
            tokio::time::sleep(Duration::from_millis(step.at_ms.saturating_sub(elapsed))).await;
            elapsed = step.at_ms;
            step.apply(&fleet);
        }
    }
}

impl ScenarioStep {
    fn apply(&self, fleet: &Fleet) {
        let chosen = fleet.select(&self.select);
        if chosen.is_empty() {
            tracing::warn!(select = self.select, "a scenario step means no BMC");
        }
        for bmc in chosen {
            if self.clear {
                bmc.clear_faults();
            }
            if let Some(faults) = &self.faults {
                bmc.set_faults(faults.clone());
            }
            match self.power {
                Some(ScenarioPower::On) => bmc.set_power(true),
                Some(ScenarioPower::Off) => bmc.set_power(false),
                Some(ScenarioPower::Toggle) => {
                    bmc.toggle();
                }
                None => {}
            }
            if let Some(present) = self.ac {
                bmc.set_ac(present);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_mean_the_same() {
        let toml = "[[step]]\nat_ms = 5\nselect = \"a*\"\npower = \"off\"\nfaults = { slow_ms = 3, refuse = [{ on = \"reset\", status = 503 }] }";
        let json =
            r#"{"step":[{"at_ms":5,"select":"a*","power":"off","faults":{"slow_ms":3,"refuse":[{"on":"reset","status":503}]}}]}"#;
        let (a, b): (Scenario, Scenario) = (toml::from_str(toml).unwrap(), serde_json::from_str(json).unwrap());
        assert_eq!(a, b);
        assert!(toml::from_str::<Scenario>("[[step]]\nat_ms = 5\nselect = \"a\"\nfault = {}").is_err());
    }
}
