//! The boot override of a system: what is offered, what is asked for, and whether it was taken.

use picket_common::command::{BootDevice, Persistence};
use serde_json::{Map, Value, json};

use super::answer::{strings, text};

/// `Boot` of a `ComputerSystem`, as far as overrides go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    target: Option<String>,
    enabled: Option<String>,
    targets: Option<Vec<String>>,
    enableds: Option<Vec<String>>,
}

/// An override that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Override {
    target: Option<&'static str>,
    enabled: &'static str,
}

/// The BMC does not offer it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the BMC offers no boot override {wanted}; it allows {allowed}")]
pub struct NotOffered {
    wanted: &'static str,
    allowed: String,
}

impl Boot {
    /// Out of a `ComputerSystem`; `None` where boot cannot be overridden.
    #[must_use]
    pub fn of(system: &Value) -> Option<Self> {
        let boot = system.get("Boot")?;
        let word = |key: &str| boot.get(key).and_then(text).map(str::to_owned);
        let list = |key: &str| boot.get(key).and_then(strings);
        let found = Self {
            target: word("BootSourceOverrideTarget"),
            enabled: word("BootSourceOverrideEnabled"),
            // Older services name what is supported in a property of its own.
            targets: list("BootSourceOverrideTarget@Redfish.AllowableValues").or_else(|| list("BootSourceOverrideSupported")),
            enableds: list("BootSourceOverrideEnabled@Redfish.AllowableValues"),
        };
        (found.target.is_some() || found.targets.is_some()).then_some(found)
    }

    /// What to ask for, out of what is offered; where nothing is named the standard's words are taken.
    ///
    /// # Errors
    /// [`NotOffered`], with what is.
    pub fn choose(&self, device: BootDevice, persistence: Persistence) -> Result<Override, NotOffered> {
        let enabled = match (device, persistence) {
            (BootDevice::None, _) => "Disabled",
            (_, Persistence::Once) => "Once",
            (_, Persistence::Persistent) => "Continuous",
        };
        let target = match device {
            BootDevice::None => "None",
            BootDevice::Pxe => "Pxe",
            BootDevice::Disk => "Hdd",
            BootDevice::Bios => "BiosSetup",
        };
        offered(enabled, self.enableds.as_deref())?;
        match offered(target, self.targets.as_deref()) {
            Ok(()) => Ok(Override { target: Some(target), enabled }),
            // "Disabled" says it all.
            Err(_) if device == BootDevice::None => Ok(Override { target: None, enabled }),
            Err(not) => Err(not),
        }
    }

    /// Whether a network or disk boot can be chosen at all.
    #[must_use]
    pub fn is_useful(&self) -> bool {
        [BootDevice::Pxe, BootDevice::Disk].into_iter().any(|device| self.choose(device, Persistence::Once).is_ok())
    }

    /// Whether it does now what was asked for. A disabled override may keep any target.
    #[must_use]
    pub fn does(&self, wanted: Override) -> bool {
        let (target, enabled) = (self.target.as_deref(), self.enabled.as_deref());
        if wanted.enabled == "Disabled" {
            return matches!(enabled, None | Some("Disabled")) || target.is_none_or(|target| target == "None");
        }
        enabled == Some(wanted.enabled) && target == wanted.target
    }

    /// What it does now, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        let word = |word: &Option<String>| word.as_deref().unwrap_or("nothing").chars().take(40).collect::<String>();
        format!("{} {}", word(&self.target), word(&self.enabled))
    }
}

impl Override {
    /// What a PATCH of the system says.
    #[must_use]
    pub fn change(self) -> Value {
        let mut boot = Map::new();
        boot.insert("BootSourceOverrideEnabled".into(), self.enabled.into());
        if let Some(target) = self.target {
            boot.insert("BootSourceOverrideTarget".into(), target.into());
        }
        json!({ "Boot": boot })
    }
}

impl std::fmt::Display for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.target.unwrap_or("nothing"), self.enabled)
    }
}

fn offered(wanted: &'static str, allowed: Option<&[String]>) -> Result<(), NotOffered> {
    match allowed {
        Some(allowed) if !allowed.iter().any(|offered| offered == wanted) => {
            Err(NotOffered { wanted, allowed: allowed.iter().take(32).map(String::as_str).collect::<Vec<_>>().join(", ") })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(members: &str) -> Option<Boot> {
        Boot::of(&serde_json::from_str(&format!("{{\"Boot\":{{{members}}}}}")).unwrap())
    }

    #[test]
    fn overrides_are_chosen_from_what_is_offered() {
        use BootDevice::{Bios, Disk, None, Pxe};
        use Persistence::{Once, Persistent};
        let full =
            boot(r#""BootSourceOverrideTarget":"None","BootSourceOverrideTarget@Redfish.AllowableValues":["None","Pxe","Hdd"]"#)
                .unwrap();
        let bare = boot(r#""BootSourceOverrideTarget":"None""#).unwrap();
        let once = boot(
            r#""BootSourceOverrideTarget@Redfish.AllowableValues":["Pxe"],"BootSourceOverrideEnabled@Redfish.AllowableValues":["Disabled","Once"]"#,
        )
        .unwrap();
        for (boot, device, persistence, expected) in [
            (&full, Pxe, Once, Ok("Pxe Once")),
            (&full, Disk, Persistent, Ok("Hdd Continuous")),
            (&full, None, Once, Ok("None Disabled")),
            (&full, Bios, Once, Err("no boot override BiosSetup; it allows None, Pxe, Hdd")),
            (&bare, Bios, Once, Ok("BiosSetup Once")),
            (&once, Pxe, Persistent, Err("no boot override Continuous; it allows Disabled, Once")),
            (&once, None, Once, Ok("nothing Disabled")),
        ] {
            let chosen = boot.choose(device, persistence);
            match expected {
                Ok(text) => assert_eq!(chosen.unwrap().to_string(), text),
                Err(text) => assert!(chosen.unwrap_err().to_string().contains(text), "{text}"),
            }
        }
        let change = full.choose(Pxe, Once).unwrap().change().to_string();
        assert_eq!(change, r#"{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Pxe"}}"#);
        assert!(full.is_useful() && bare.is_useful() && once.is_useful());
        assert_eq!((boot(""), boot(r#""BootOrder":[]"#)), (Option::None, Option::None));
    }

    #[test]
    fn what_is_shown_must_be_what_was_asked_for() {
        let shown = |target: &str, enabled: &str| {
            boot(&format!(r#""BootSourceOverrideTarget":{target},"BootSourceOverrideEnabled":{enabled}"#)).unwrap_or(Boot {
                target: None,
                enabled: None,
                targets: None,
                enableds: None,
            })
        };
        let any = shown("\"None\"", "\"Disabled\"");
        let pxe = any.choose(BootDevice::Pxe, Persistence::Once).unwrap();
        let none = any.choose(BootDevice::None, Persistence::Once).unwrap();
        for (target, enabled, does_pxe, does_none) in [
            ("\"Pxe\"", "\"Once\"", true, false),
            ("\"Pxe\"", "\"Continuous\"", false, false),
            ("\"Pxe\"", "\"Disabled\"", false, true),
            ("\"Hdd\"", "\"Once\"", false, false),
            ("\"None\"", "\"Once\"", false, true),
            ("null", "null", false, true),
        ] {
            let shown = shown(target, enabled);
            assert_eq!((shown.does(pxe), shown.does(none)), (does_pxe, does_none), "{target} {enabled}");
        }
    }
}
