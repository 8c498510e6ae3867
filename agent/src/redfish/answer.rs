//! Reading the resources that matter out of JSON of unknown quality. Bodies are bounded before they come here.

use serde::Deserialize;
use serde_json::Value;

use super::link::{Origin, Path};
use super::quirks::Machine;

/// Why an answer is of no use.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not a JSON object.
    #[error("the {what} is not a JSON object")]
    NotJson {
        /// Which resource.
        what: &'static str,
        /// What the parser says.
        #[source]
        cause: serde_json::Error,
    },
    /// A member is absent, null, or no link on this BMC.
    #[error("the {what} has no usable {member}")]
    Missing {
        /// Which resource.
        what: &'static str,
        /// Which member.
        member: &'static str,
    },
}

pub(super) fn parse<'a, T: Deserialize<'a>>(what: &'static str, body: &'a [u8]) -> Result<T, AnswerError> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    serde_json::from_slice(body).map_err(|cause| AnswerError::NotJson { what, cause })
}

pub(super) fn text(value: &Value) -> Option<&str> {
    value.as_str().map(str::trim).filter(|text| !text.is_empty())
}

pub(super) fn link(value: &Value, origin: &Origin) -> Option<Path> {
    Path::at(origin, value.get("@odata.id")?.as_str()?)
}

/// The service root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The collection of systems.
    pub systems: Path,
    /// Where sessions are made; `None` where there is no session service.
    pub sessions: Option<Path>,
    /// The account service.
    pub accounts: Option<Path>,
    /// `RedfishVersion`.
    pub version: Option<String>,
    /// What the root tells about the maker.
    pub machine: Machine,
}

impl Root {
    /// Reads a `ServiceRoot`.
    ///
    /// # Errors
    /// No JSON, or no link to the systems.
    pub fn read(body: &[u8], origin: &Origin) -> Result<Self, AnswerError> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(rename = "Systems", default)]
            systems: Value,
            #[serde(rename = "SessionService", default)]
            session_service: Value,
            #[serde(rename = "Links", default)]
            links: Value,
            #[serde(rename = "Vendor", default)]
            vendor: Value,
            #[serde(rename = "Product", default)]
            product: Value,
            #[serde(rename = "Oem", default)]
            oem: Value,
            #[serde(rename = "AccountService", default)]
            account_service: Value,
            #[serde(rename = "RedfishVersion", default)]
            version: Value,
        }
        let raw: Raw = parse("service root", body)?;
        let systems = link(&raw.systems, origin).ok_or(AnswerError::Missing { what: "service root", member: "Systems" })?;
        // The path of the collection is the standard's own (DSP0266 §13.3.4) where only the service is named.
        let sessions = raw
            .links
            .get("Sessions")
            .and_then(|value| link(value, origin))
            .or_else(|| link(&raw.session_service, origin).map(|service| service.child("Sessions")));
        let vendor = text(&raw.vendor).map(str::to_owned).or_else(|| raw.oem.as_object()?.keys().next().cloned());
        // iLO names its firmware in the root; others would need a further request for the manager.
        let firmware = ["/Hpe/Manager/0/ManagerFirmwareVersion", "/Hp/Manager/0/ManagerFirmwareVersion"]
            .iter()
            .find_map(|pointer| raw.oem.pointer(pointer).and_then(text));
        let machine = Machine {
            manufacturer: vendor.unwrap_or_default(),
            product: text(&raw.product).unwrap_or_default().to_owned(),
            firmware: firmware.unwrap_or_default().to_owned(),
        };
        let accounts = link(&raw.account_service, origin);
        Ok(Self { systems, sessions, accounts, version: text(&raw.version).map(str::to_owned), machine })
    }
}

/// One page of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// Members with a usable link; null and foreign ones are left out.
    pub members: Vec<Path>,
    /// The next page (`Members@odata.nextLink`).
    pub next: Option<Path>,
}

impl Collection {
    /// Reads a collection.
    ///
    /// # Errors
    /// No JSON, or no `Members`.
    pub fn read(body: &[u8], origin: &Origin) -> Result<Self, AnswerError> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(rename = "Members", default)]
            members: Value,
            #[serde(rename = "Members@odata.nextLink", default)]
            next: Value,
        }
        let raw: Raw = parse("collection", body)?;
        let members = raw.members.as_array().ok_or(AnswerError::Missing { what: "collection", member: "Members" })?;
        Ok(Self {
            members: members.iter().filter_map(|member| link(member, origin)).collect(),
            next: raw.next.as_str().and_then(|next| Path::at(origin, next)),
        })
    }
}

/// How a system is reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetAction {
    /// Where to post.
    pub target: Path,
    /// `ResetType@Redfish.AllowableValues`, if any.
    pub allowed: Option<Vec<String>>,
    /// `@Redfish.ActionInfo`, if any.
    pub info: Option<Path>,
}

/// A `ComputerSystem`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// `PowerState` as it stands.
    pub power_state: Option<String>,
    /// `UUID`, lower case; `None` for absent and for the all-zero and all-one values of unset firmware.
    pub uuid: Option<String>,
    /// `#ComputerSystem.Reset`.
    pub reset: Option<ResetAction>,
    /// `Manufacturer`.
    pub manufacturer: Option<String>,
}

impl System {
    /// Reads a `ComputerSystem` that was read from `path`.
    ///
    /// # Errors
    /// No JSON object.
    pub fn read(body: &[u8], origin: &Origin, path: &Path) -> Result<Self, AnswerError> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(rename = "PowerState", default)]
            power_state: Value,
            #[serde(rename = "UUID", default)]
            uuid: Value,
            #[serde(rename = "Actions", default)]
            actions: Value,
            #[serde(rename = "Manufacturer", default)]
            manufacturer: Value,
        }
        let raw: Raw = parse("system", body)?;
        let uuid = text(&raw.uuid).map(str::to_ascii_lowercase).filter(|uuid| !is_placeholder(uuid));
        let reset = raw.actions.get("#ComputerSystem.Reset").filter(|action| action.is_object());
        Ok(Self {
            power_state: raw.power_state.as_str().map(str::to_owned),
            uuid,
            reset: reset.and_then(|action| reset_action(action, origin, path)),
            manufacturer: text(&raw.manufacturer).map(str::to_owned),
        })
    }
}

fn is_placeholder(uuid: &str) -> bool {
    let mut digits = uuid.bytes().filter(|b| *b != b'-');
    let first = digits.next().unwrap_or(b'0');
    matches!(first, b'0' | b'f') && digits.all(|b| b == first)
}

fn reset_action(action: &Value, origin: &Origin, system: &Path) -> Option<ResetAction> {
    let target = match action.get("target").and_then(Value::as_str) {
        Some(target) => Path::at(origin, target)?,
        // The URI that the specification prescribes (DSP0266 §7.11.2).
        None => Path::parse(&format!("{}/Actions/ComputerSystem.Reset", system.as_str().trim_end_matches('/')))?,
    };
    Some(ResetAction {
        target,
        allowed: action.get("ResetType@Redfish.AllowableValues").and_then(strings),
        info: action.get("@Redfish.ActionInfo").and_then(Value::as_str).and_then(|info| Path::at(origin, info)),
    })
}

/// The strings of an array; an array without any says nothing.
pub(super) fn strings(value: &Value) -> Option<Vec<String>> {
    let values: Vec<String> = value.as_array()?.iter().filter_map(text).map(str::to_owned).collect();
    (!values.is_empty()).then_some(values)
}

/// Reads the reset types that an `ActionInfo` allows; `None` when it does not say.
///
/// # Errors
/// No JSON object.
pub fn allowed_by_info(body: &[u8]) -> Result<Option<Vec<String>>, AnswerError> {
    #[derive(Deserialize)]
    struct Raw {
        #[serde(rename = "Parameters", default)]
        parameters: Value,
    }
    let raw: Raw = parse("action info", body)?;
    let parameters = raw.parameters.as_array().map(Vec::as_slice).unwrap_or_default();
    let reset_type = parameters.iter().find(|parameter| parameter.get("Name").and_then(Value::as_str) == Some("ResetType"));
    Ok(reset_type.and_then(|parameter| parameter.get("AllowableValues")).and_then(strings))
}

/// The user of a `Session`, to be sure that a remembered session is still ours.
#[must_use]
pub fn session_user(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Raw {
        #[serde(rename = "UserName", default)]
        user: Value,
    }
    let raw: Raw = parse("session", body).ok()?;
    text(&raw.user).map(str::to_owned)
}

/// The `@odata.id` of a resource, for a new session whose `Location` header is missing.
#[must_use]
pub fn own_link(body: &[u8]) -> Option<Path> {
    let value: Value = parse("resource", body).ok()?;
    Path::of(value.get("@odata.id")?.as_str()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin() -> Origin {
        Origin::new("https", "10.0.0.9", 443)
    }

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    #[test]
    fn root_with_and_without_sessions() {
        let full = br#"{"Systems":{"@odata.id":"/redfish/v1/Systems"},"Links":{"Sessions":{"@odata.id":"/redfish/v1/Sessions"}},
            "SessionService":{"@odata.id":"/redfish/v1/SessionService"},"Vendor":"HPE","Product":"ProLiant DL360 Gen10",
            "Oem":{"Hpe":{"Manager":[{"ManagerFirmwareVersion":"2.44"}]}}}"#;
        let root = Root::read(full, &origin()).unwrap();
        assert_eq!(root.sessions, Some(path("/redfish/v1/Sessions")));
        assert_eq!((root.machine.manufacturer.as_str(), root.machine.firmware.as_str()), ("HPE", "2.44"));

        let service_only = br#"{"Systems":{"@odata.id":"/redfish/v1/Systems/"},"SessionService":{"@odata.id":"/redfish/v1/SessionService/"},"Links":null,"Oem":{"Dell":{}}}"#;
        let root = Root::read(service_only, &origin()).unwrap();
        assert_eq!(root.sessions, Some(path("/redfish/v1/SessionService/Sessions")));
        assert_eq!(root.machine.manufacturer, "Dell");

        let sushy = br#"{"Systems":{"@odata.id":"/redfish/v1/Systems"},"Managers":{"@odata.id":"/redfish/v1/Managers"}}"#;
        assert_eq!(Root::read(sushy, &origin()).unwrap().sessions, None);
        for bad in [&b"{}"[..], b"[]", b"", b"<html>", br#"{"Systems":null}"#, br#"{"Systems":{"@odata.id":"//evil/x"}}"#] {
            assert!(Root::read(bad, &origin()).is_err());
        }
    }

    #[test]
    fn collections_with_holes() {
        let body = br#"{"Members":[null,{"@odata.id":"/s/1"},{"@odata.id":null},{},{"@odata.id":"https://evil/s/2"}],"Members@odata.nextLink":"/s?$skip=1"}"#;
        let page = Collection::read(body, &origin()).unwrap();
        assert_eq!(page, Collection { members: vec![path("/s/1")], next: Some(path("/s?$skip=1")) });
        assert!(Collection::read(br#"{"Members":null}"#, &origin()).is_err());
    }

    #[test]
    fn systems_tolerate_what_does_not_matter() {
        let at = path("/redfish/v1/Systems/1");
        for (body, state, reset) in [
            (r#"{"PowerState":"On"}"#, Some("On"), None),
            (r#"{"PowerState":null,"Actions":null,"UUID":7}"#, None, None),
            (r#"{"PowerState":1,"Actions":[]}"#, None, None),
            (
                "\u{feff}{\"PowerState\":\"Off\",\"Actions\":{\"#ComputerSystem.Reset\":{}}}",
                Some("Off"),
                Some(ResetAction { target: path("/redfish/v1/Systems/1/Actions/ComputerSystem.Reset"), allowed: None, info: None }),
            ),
            (
                r##"{"Actions":{"#ComputerSystem.Reset":{"target":"/x","ResetType@Redfish.AllowableValues":[null,"On","ForceOff"],"@Redfish.ActionInfo":"/i"}}}"##,
                None,
                Some(ResetAction {
                    target: path("/x"),
                    allowed: Some(vec!["On".into(), "ForceOff".into()]),
                    info: Some(path("/i")),
                }),
            ),
            (r##"{"Actions":{"#ComputerSystem.Reset":{"target":"https://evil/x"}}}"##, None, None),
        ] {
            let system = System::read(body.as_bytes(), &origin(), &at).unwrap();
            assert_eq!((system.power_state.as_deref(), system.reset), (state, reset), "{body}");
        }
    }

    #[test]
    fn unset_uuids_identify_nothing() {
        let at = path("/s");
        for (uuid, expected) in [
            ("4C4C4544-0042", Some("4c4c4544-0042")),
            ("00000000-0000-0000-0000-000000000000", None),
            ("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", None),
            ("", None),
        ] {
            let body = format!(r#"{{"UUID":"{uuid}"}}"#);
            assert_eq!(System::read(body.as_bytes(), &origin(), &at).unwrap().uuid.as_deref(), expected);
        }
    }

    #[test]
    fn action_info() {
        let body = br#"{"Parameters":[{"Name":"Other"},null,{"Name":"ResetType","AllowableValues":["On","ForceOff"]}]}"#;
        assert_eq!(allowed_by_info(body).unwrap(), Some(vec!["On".to_owned(), "ForceOff".to_owned()]));
        assert_eq!(allowed_by_info(b"{}").unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let at = path("/s");
            prop_assert!(Root::read(&body, &origin()).is_err());
            let state = System::read(&body, &origin(), &at).ok().and_then(|system| system.power_state);
            prop_assert_eq!(state, None);
            prop_assert_eq!(session_user(&body), None);
        }
    }
}
