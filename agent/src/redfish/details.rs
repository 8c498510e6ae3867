//! What a system tells beyond its power, read only when something asks for it: polls do not pay for it.

use serde_json::Value;

use super::answer::{AnswerError, link, parse, text};
use super::boot::Boot;
use super::light::Light;
use super::link::{Origin, Path};

/// What the host does when mains power returns (`PowerRestorePolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestorePolicy {
    /// Stays off.
    StayOff,
    /// Returns to what it was.
    Previous,
    /// Switches on.
    On,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// `SerialNumber`.
    pub serial: Option<String>,
    /// `Manufacturer`.
    pub manufacturer: Option<String>,
    /// `Model`.
    pub model: Option<String>,
    /// `PowerRestorePolicy`, where it says.
    pub restore_policy: Option<RestorePolicy>,
    /// The first of `Links.ManagedBy`.
    pub manager: Option<Path>,
    /// The first of `Links.Chassis`.
    pub chassis: Option<Path>,
    /// Its identify light.
    pub light: Option<Light>,
    /// Its boot override.
    pub boot: Option<Boot>,
    /// `@odata.etag`.
    pub etag: Option<String>,
}

impl Details {
    /// Reads a `ComputerSystem`, or of a `Chassis` what it has of this.
    ///
    /// # Errors
    /// No JSON.
    pub fn read(body: &[u8], origin: &Origin) -> Result<Self, AnswerError> {
        let resource: Value = parse("system", body)?;
        let word = |key: &str| resource.get(key).and_then(text).map(str::to_owned);
        let first = |key: &str| link(resource.pointer(&format!("/Links/{key}/0"))?, origin);
        Ok(Self {
            serial: word("SerialNumber"),
            manufacturer: word("Manufacturer"),
            model: word("Model"),
            restore_policy: match word("PowerRestorePolicy").as_deref() {
                Some("AlwaysOff") => Some(RestorePolicy::StayOff),
                Some("LastState") => Some(RestorePolicy::Previous),
                Some("AlwaysOn") => Some(RestorePolicy::On),
                _ => None,
            },
            manager: first("ManagedBy"),
            chassis: first("Chassis"),
            light: Light::of(&resource),
            boot: Boot::of(&resource),
            etag: word("@odata.etag"),
        })
    }
}

/// `FirmwareVersion` of a `Manager`.
#[must_use]
pub fn firmware(manager: &[u8]) -> Option<String> {
    let manager: Value = parse("manager", manager).ok()?;
    manager.get("FirmwareVersion").and_then(text).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn details_of_a_system() {
        let origin = Origin::new("https", "10.0.0.9", 443);
        let body = br#"{"SerialNumber":" S1 ","Manufacturer":"Maker","Model":"","PowerRestorePolicy":"AlwaysOn",
            "Links":{"ManagedBy":[{"@odata.id":"/m/1"},{"@odata.id":"/m/2"}],"Chassis":[{"@odata.id":"https://evil/c"}]},
            "IndicatorLED":"Off","Boot":{"BootSourceOverrideTarget":"None"},"@odata.etag":"W/\"1\""}"#;
        let details = Details::read(body, &origin).unwrap();
        assert_eq!((details.serial.as_deref(), details.model), (Some("S1"), None));
        assert_eq!(details.restore_policy, Some(RestorePolicy::On));
        assert_eq!((details.manager, details.chassis), (Path::parse("/m/1"), None));
        assert!(details.light.is_some() && details.boot.is_some());
        assert_eq!(details.etag.as_deref(), Some("W/\"1\""));
        assert_eq!(firmware(br#"{"FirmwareVersion":"6.10.30"}"#).as_deref(), Some("6.10.30"));
        assert_eq!((firmware(b"[]"), firmware(b"")), (None, None));
    }

    proptest! {
        #[test]
        fn any_json_is_survived(text in "[\\[\\]{}\":,a-zA-Z0-9/ ]{0,80}") {
            let origin = Origin::new("https", "10.0.0.9", 443);
            let _read = (Details::read(text.as_bytes(), &origin).is_ok(), firmware(text.as_bytes()));
        }
    }
}
