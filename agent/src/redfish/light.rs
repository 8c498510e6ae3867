//! The identify light of a system or chassis: which property it is, and what is written to it. It has no timer in Redfish.

use serde_json::{Value, json};

use super::answer::strings;

/// Which property lights it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Light {
    /// `LocationIndicatorActive`, a boolean.
    Location,
    /// `IndicatorLED` (deprecated since 2020, still the only one on many BMCs), with its allowable values if any.
    Indicator(Option<Vec<String>>),
}

impl Light {
    /// Out of a `ComputerSystem` or `Chassis`; `None` where there is no such light.
    #[must_use]
    pub fn of(resource: &Value) -> Option<Self> {
        if resource.get("LocationIndicatorActive").is_some_and(Value::is_boolean) {
            return Some(Self::Location);
        }
        let led = resource.get("IndicatorLED").filter(|led| led.is_string() || led.is_null())?;
        let allowed = resource.get("IndicatorLED@Redfish.AllowableValues").and_then(strings);
        // Without a value nobody knows what it is: "Unknown" is one.
        (led.is_string() || allowed.is_some()).then_some(Self::Indicator(allowed))
    }

    /// What a PATCH says to light it or put it out. A light that cannot be off blinks to be found, and is steady otherwise.
    #[must_use]
    pub fn change(&self, lit: bool) -> Value {
        match self {
            Self::Location => json!({ "LocationIndicatorActive": lit }),
            Self::Indicator(allowed) => {
                let offers = |word: &str| allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|offered| offered == word));
                let word = match (lit, offers("Off"), offers("Lit")) {
                    (true, true, true) => "Lit",
                    (true, _, _) => "Blinking",
                    (false, true, _) => "Off",
                    (false, false, _) => "Lit",
                };
                json!({ "IndicatorLED": word })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lights_are_found_and_changed() {
        for (resource, on, off) in [
            (
                r#"{"LocationIndicatorActive":false,"IndicatorLED":"Off"}"#,
                r#"{"LocationIndicatorActive":true}"#,
                r#"{"LocationIndicatorActive":false}"#,
            ),
            (r#"{"LocationIndicatorActive":null,"IndicatorLED":"Off"}"#, r#"{"IndicatorLED":"Lit"}"#, r#"{"IndicatorLED":"Off"}"#),
            (
                r#"{"IndicatorLED":"Lit","IndicatorLED@Redfish.AllowableValues":["Lit","Blinking"]}"#,
                r#"{"IndicatorLED":"Blinking"}"#,
                r#"{"IndicatorLED":"Lit"}"#,
            ),
            (
                r#"{"IndicatorLED":null,"IndicatorLED@Redfish.AllowableValues":["Blinking","Off"]}"#,
                r#"{"IndicatorLED":"Blinking"}"#,
                r#"{"IndicatorLED":"Off"}"#,
            ),
        ] {
            let light = Light::of(&serde_json::from_str(resource).unwrap()).unwrap();
            assert_eq!((light.change(true).to_string(), light.change(false).to_string()), (on.into(), off.into()), "{resource}");
        }
        for none in ["{}", r#"{"IndicatorLED":null}"#, r#"{"IndicatorLED":7,"LocationIndicatorActive":"yes"}"#, "[]", "null"] {
            assert_eq!(Light::of(&serde_json::from_str(none).unwrap()), None, "{none}");
        }
    }
}
