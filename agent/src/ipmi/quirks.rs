//! What particular BMCs do differently: one table of data, keyed by what Get Device ID tells. The flow has no vendor names.
//!
//! A quirk comes into force by detection (the session finds it out without dropping a check), by the table, or by the host's
//! option `quirks`. The option has the last word: a plain name switches on, `no-` before it switches off. What drops a check
//! is never detected and never in the table: only the option can ask for it.

use super::command::DeviceId;

/// One tolerance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    /// Login codes are made with the privilege of Open Session instead of RAKP 1's role byte. Detected: both sides still
    /// prove the password.
    OpenSessionPrivilege,
    /// Get Channel Authentication Capabilities answers nonsense: log in whatever it says.
    AuthCapabilities,
    /// Packets of a session carry session id 0; the authentication code still tells them apart.
    SessionIdZero,
    /// The checksums of messages inside a session are wrong; the authentication code still covers the message.
    Checksums,
    /// "Default hard disk" does not boot a disk by UEFI; "primary remote media" does.
    UefiDisk,
    /// Of a longer password only 16 bytes are kept. Detected: the BMC's own proof shows it.
    ShortPassword,
}

impl Quirk {
    /// All, in the order in which facts name them.
    pub const ALL: [Self; 6] = [
        Self::OpenSessionPrivilege,
        Self::AuthCapabilities,
        Self::SessionIdZero,
        Self::Checksums,
        Self::UefiDisk,
        Self::ShortPassword,
    ];

    /// Its name in options and facts: FreeIPMI's where it has one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenSessionPrivilege => "opensesspriv",
            Self::AuthCapabilities => "authcap",
            Self::SessionIdZero => "idzero",
            Self::Checksums => "nochecksumcheck",
            Self::UefiDisk => "uefidisk",
            Self::ShortPassword => "shortpassword",
        }
    }

    /// The quirk of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|quirk| quirk.name() == name)
    }

    /// Whether less is checked with it than without.
    #[must_use]
    pub const fn drops_a_check(self) -> bool {
        matches!(self, Self::SessionIdZero | Self::Checksums)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Some quirks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quirks(u8);

impl Quirks {
    /// Whether `quirk` is among them.
    #[must_use]
    pub const fn has(self, quirk: Quirk) -> bool {
        self.0 & quirk.bit() != 0
    }

    /// These and `quirk`.
    #[must_use]
    pub const fn with(self, quirk: Quirk) -> Self {
        Self(self.0 | quirk.bit())
    }

    /// These without the others.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// These and the others.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Quirk> {
        Quirk::ALL.into_iter().filter(move |quirk| self.has(*quirk))
    }
}

/// What the host's option `quirks` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Switched on.
    pub on: Quirks,
    /// Switched off, whatever is detected or in the table.
    pub off: Quirks,
}

impl Wishes {
    /// Reads a list such as `authcap, no-uefidisk`; the name that means nothing is the error.
    ///
    /// # Errors
    /// The first name that is none.
    pub fn read(list: &str) -> Result<Self, &str> {
        let mut wishes = Self::default();
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match (Quirk::named(word), word.strip_prefix("no-").and_then(Quirk::named)) {
                (Some(quirk), _) => wishes.on = wishes.on.with(quirk),
                (None, Some(quirk)) => wishes.off = wishes.off.with(quirk),
                (None, None) => return Err(word),
            }
        }
        Ok(wishes)
    }

    /// What is in force, given what was detected and which BMC it is.
    #[must_use]
    pub fn in_force(self, detected: Quirks, device: Option<&DeviceId>) -> Quirks {
        let table = device.map_or(Quirks::default(), of);
        detected.and(table).without(self.off).and(self.on)
    }
}

/// A line of the table. It counts for a BMC when all of it fits; several lines add up.
struct Row {
    /// IANA number.
    manufacturer: u32,
    /// Product numbers; none means all.
    products: &'static [u16],
    /// Firmware before this (major, minor as BCD) only; `None` means all.
    before: Option<(u8, u8)>,
    sets: &'static [Quirk],
}

const OPEN_SESSION: &[Quirk] = &[Quirk::OpenSessionPrivilege];
const UEFI_DISK: &[Quirk] = &[Quirk::UefiDisk];

static TABLE: &[Row] = &[
    // Seen by FreeIPMI (its man page, "opensesspriv") on Sun Fire 4100/4200/4500, Inventec 5441 (Dell Xanadu II), Quanta QSSC-S4R.
    Row { manufacturer: 42, products: &[], before: None, sets: OPEN_SESSION },
    Row { manufacturer: 7244, products: &[], before: None, sets: OPEN_SESSION },
    Row { manufacturer: 20569, products: &[], before: None, sets: OPEN_SESSION },
    // Supermicro's own SMCIPMITool asks so, and OpenStack Ironic does (story 2008241). Some boards give the second number, which
    // is not Supermicro's own.
    Row { manufacturer: 10876, products: &[], before: None, sets: UEFI_DISK },
    Row { manufacturer: 47488, products: &[], before: None, sets: UEFI_DISK },
];

/// What the table says about a BMC.
#[must_use]
pub fn of(device: &DeviceId) -> Quirks {
    let rows = TABLE.iter().filter(|row| row.fits(device));
    rows.flat_map(|row| row.sets).fold(Quirks::default(), |quirks, quirk| quirks.with(*quirk))
}

impl Row {
    fn fits(&self, device: &DeviceId) -> bool {
        self.manufacturer == device.manufacturer
            && (self.products.is_empty() || self.products.contains(&device.product))
            && self.before.is_none_or(|before| device.firmware < before)
    }
}

/// Makers by their IANA number, as far as people know them by name.
static MAKERS: [(u32, &str); 20] = [
    (2, "IBM"),
    (11, "HP"),
    (42, "Sun"),
    (111, "Oracle"),
    (119, "NEC"),
    (343, "Intel"),
    (674, "Dell"),
    (2011, "Huawei"),
    (2623, "ASUS"),
    (5771, "Cisco"),
    (6653, "Tyan"),
    (7244, "Quanta"),
    (10368, "Fujitsu"),
    (10876, "Supermicro"),
    (15000, "Kontron"),
    (15370, "Gigabyte"),
    (19046, "Lenovo"),
    (20569, "Inventec"),
    (47196, "HPE"),
    (47488, "Supermicro"),
];

/// The manufacturer as people know it, or its number.
#[must_use]
pub fn maker(iana: u32) -> String {
    MAKERS.iter().find(|(number, _)| *number == iana).map_or_else(|| format!("IANA {iana}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use picket_common::driver::{IPMI, OptionKind};

    use super::*;

    const fn device(manufacturer: u32, product: u16, firmware: (u8, u8)) -> DeviceId {
        DeviceId { firmware, manufacturer, product }
    }

    #[test]
    fn rows_fit_by_all_that_they_name() {
        let row = Row { manufacturer: 7, products: &[1, 2], before: Some((2, 0x10)), sets: OPEN_SESSION };
        for (device, fits) in [
            (device(7, 1, (2, 0x09)), true),
            (device(7, 2, (1, 0x99)), true),
            (device(7, 3, (1, 0)), false),
            (device(7, 1, (2, 0x10)), false),
            (device(8, 1, (1, 0)), false),
        ] {
            assert_eq!(row.fits(&device), fits, "{device:?}");
        }
    }

    #[test]
    fn no_row_and_no_detection_drops_a_check() {
        for row in TABLE {
            assert!(row.sets.iter().all(|quirk| !quirk.drops_a_check()), "{}", row.manufacturer);
        }
    }

    #[test]
    fn the_option_has_the_last_word() {
        let supermicro = device(10876, 0x0901, (3, 0x45));
        let detected = Quirks::default().with(Quirk::OpenSessionPrivilege);
        let names = |option: &str, device: Option<&DeviceId>| {
            let names: Vec<&str> = Wishes::read(option).unwrap().in_force(detected, device).iter().map(Quirk::name).collect();
            names.join(" ")
        };
        assert_eq!(names("", None), "opensesspriv");
        assert_eq!(names("", Some(&supermicro)), "opensesspriv uefidisk");
        assert_eq!(names("no-uefidisk", Some(&supermicro)), "opensesspriv");
        assert_eq!(names("no-opensesspriv, idzero", Some(&supermicro)), "idzero uefidisk");
        assert_eq!(names("uefidisk", Some(&device(674, 1, (1, 0)))), "opensesspriv uefidisk");
        assert_eq!(Wishes::read("authcap,sun20"), Err("sun20"));
        assert_eq!(Wishes::read("no-sun20"), Err("no-sun20"));
    }

    #[test]
    fn every_name_is_offered() {
        let kind = IPMI.options.iter().find(|option| option.name == "quirks").unwrap().kind;
        let OptionKind::AnyOf(words) = kind else { panic!("{kind:?}") };
        let mut wanted: Vec<String> = Quirk::ALL.iter().map(|quirk| quirk.name().to_owned()).collect();
        wanted.extend(Quirk::ALL.iter().filter(|quirk| !quirk.drops_a_check()).map(|quirk| format!("no-{}", quirk.name())));
        assert_eq!(words, wanted);
    }

    #[test]
    fn makers_have_names_or_numbers() {
        assert_eq!((maker(674).as_str(), maker(4753).as_str()), ("Dell", "IANA 4753"));
    }
}
