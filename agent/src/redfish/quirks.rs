//! What particular makers do differently, as one table of data. The flow has no vendor names.

/// Whose BMC it is, as far as it tells; empty where it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// `Vendor` of the service root, or the first key of its `Oem`, or `Manufacturer` of the system.
    pub manufacturer: String,
    /// `Product` of the service root.
    pub product: String,
    /// The BMC's firmware version, where the service root names it.
    pub firmware: String,
}

/// What differs. Message ids are compared by their last part, without registry and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirks {
    /// What facts call it; empty for the standard.
    pub name: &'static str,
    /// Message ids that mean "ask again in a moment", under whatever HTTP status.
    pub not_ready: &'static [&'static str],
    /// Message ids that mean "all sessions are in use".
    pub sessions_used_up: &'static [&'static str],
    /// Message ids under which a login is refused with another status than 401.
    pub login_refused: &'static [&'static str],
    /// Message ids that mean "not in this power state", under whatever HTTP status.
    pub not_in_this_state: &'static [&'static str],
}

const NOT_READY: &[&str] = &["ServiceTemporarilyUnavailable", "ServiceShuttingDown"];
const USED_UP: &[&str] = &["SessionLimitExceeded", "CreateLimitReachedForResource"];

const STANDARD: Quirks = Quirks {
    name: "",
    not_ready: NOT_READY,
    sessions_used_up: USED_UP,
    login_refused: &["ResourceAtUriUnauthorized"],
    not_in_this_state: &["ResourceInStandby"],
};

struct Row {
    /// Prefixes, compared without regard to case; empty fits all.
    manufacturer: &'static str,
    product: &'static str,
    firmware: &'static str,
    quirks: Quirks,
}

/// The first row that fits counts.
static TABLE: &[Row] = &[
    Row {
        manufacturer: "Dell",
        product: "",
        firmware: "",
        // iDRAC 8 and 9: SYS518 and SWC0700 while it starts, RAC0218 (with 503) when all sessions are in use.
        quirks: Quirks {
            name: "idrac-messages",
            not_ready: &["SYS518", "SWC0700", "ServiceTemporarilyUnavailable", "ServiceShuttingDown"],
            sessions_used_up: &["RAC0218", "SessionLimitExceeded", "CreateLimitReachedForResource"],
            ..STANDARD
        },
    },
    Row {
        manufacturer: "Hp",
        product: "",
        firmware: "",
        // iLO 4 ("Hp") and later ("HPE", "Hpe"): 400 InvalidOperationForSystemState with the argument "Power is off"; iLO 4
        // refuses a login with 400 UnauthorizedLoginAttempt.
        quirks: Quirks {
            name: "ilo-messages",
            login_refused: &["UnauthorizedLoginAttempt", "ResourceAtUriUnauthorized"],
            not_in_this_state: &["InvalidOperationForSystemState", "ResourceInStandby"],
            ..STANDARD
        },
    },
];

/// The quirks of `machine`.
#[must_use]
pub fn of(machine: &Machine) -> Quirks {
    TABLE.iter().find(|row| row.fits(machine)).map_or(STANDARD, |row| row.quirks)
}

impl Row {
    fn fits(&self, machine: &Machine) -> bool {
        begins(&machine.manufacturer, self.manufacturer)
            && begins(&machine.product, self.product)
            && begins(&machine.firmware, self.firmware)
    }
}

fn begins(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makers_are_found_by_prefix() {
        for (manufacturer, full) in [("Dell", Some("RAC0218")), ("dell inc.", Some("RAC0218")), ("HPE", None), ("", None)] {
            let machine = Machine { manufacturer: manufacturer.into(), ..Machine::default() };
            assert_eq!(of(&machine).sessions_used_up.iter().find(|id| **id == "RAC0218").copied(), full, "{manufacturer}");
        }
        assert_eq!(of(&Machine::default()), STANDARD);
        assert_eq!(of(&Machine { manufacturer: "Örtlich".into(), ..Machine::default() }), STANDARD);
    }
}
