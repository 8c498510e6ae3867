//! BMC settings: checked word by word, merged with what was there. Names and addresses are only looked at, never resolved.

use std::collections::BTreeMap;
use std::net::IpAddr;

use picket_common::command::Refusal;
use picket_common::driver;
use picket_common::seal::SealingKey;

use super::request::{BmcChange, Rejection};
use super::view::{BmcRow, SealedPassword};

const MAX_USERNAME: usize = 64;
const MAX_OPTIONS: usize = 32;
const MAX_OPTION_KEY: usize = 64;
const MAX_OPTION_VALUE: usize = 512;
/// Keeps even the largest possible rack within the most parts an assignment may have.
const MAX_OPTIONS_LEN: usize = 8 * 1024;

/// Where the host was and where it will be, as far as its password is concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealing {
    /// The sealing key of the agent that will be in charge.
    pub(super) key: Option<SealingKey>,
    /// Whether another agent will be in charge than before.
    pub(super) moved: bool,
}

fn invalid(field: &'static str, text: impl Into<String>) -> Rejection {
    Rejection::Invalid { field, text: text.into() }
}

/// The settings after `change`. `whole` = fields that are not given go back to their defaults; else they stay.
pub(super) fn merge(
    base: Option<&BmcRow>,
    change: BmcChange,
    whole: bool,
    sealing: Sealing,
    fresh: u64,
) -> Result<BmcRow, Rejection> {
    let kept = base.filter(|_| !whole);
    let driver = change.driver.or_else(|| kept.map(|bmc| bmc.driver.clone()));
    let driver = driver.ok_or_else(|| invalid("bmc.driver", format!("is missing; use one of {}", driver::names())))?;
    let mut bmc = BmcRow {
        driver: check_driver(&driver)?,
        address: change.address.or_else(|| kept.map(|bmc| bmc.address.clone())).unwrap_or_default(),
        port: change.port.or_else(|| kept.and_then(|bmc| bmc.port)),
        username: change.username.or_else(|| kept.map(|bmc| bmc.username.clone())).unwrap_or_default(),
        password: None,
        options: change.options.or_else(|| kept.map(|bmc| bmc.options.clone())).unwrap_or_default(),
        revision: fresh,
    };
    check(&bmc)?;
    bmc.password = password(base, &bmc, change.password, sealing)?;
    if let Some(base) = base {
        bmc.revision = base.revision;
        if bmc != *base {
            bmc.revision += 1;
        }
    }
    Ok(bmc)
}

fn password(
    base: Option<&BmcRow>,
    bmc: &BmcRow,
    given: Option<SealedPassword>,
    sealing: Sealing,
) -> Result<Option<SealedPassword>, Rejection> {
    let again = |why: &str| Err(Rejection::PasswordNeededAgain(why.into()));
    if let Some(password) = given {
        return match sealing.key {
            None => Err(Rejection::Refused(Refusal::RackWithoutAgent)),
            Some(key) if key != password.agent_key => again("the rack's agent changed while it was sealed"),
            Some(_) => Ok(Some(password)),
        };
    }
    let Some((base, password)) = base.and_then(|base| base.password.clone().map(|password| (base, password))) else {
        return Ok(None);
    };
    if bmc.driver == "null" {
        return Ok(None);
    }
    if base.address != bmc.address {
        return again("it is bound to the BMC's address, which changes");
    }
    if base.username != bmc.username {
        return again("it is bound to the BMC's user name, which changes");
    }
    if sealing.moved && sealing.key != Some(password.agent_key) {
        return again("it is sealed to the agent of the host's rack, which changes");
    }
    Ok(Some(password))
}

fn check_driver(driver: &str) -> Result<String, Rejection> {
    let shown = || driver.chars().take(32).collect::<String>();
    let found = driver::find(driver);
    found
        .map(|driver| driver.name.to_owned())
        .ok_or_else(|| invalid("bmc.driver", format!("{:?} is not a driver; use one of {}", shown(), driver::names())))
}

fn check(bmc: &BmcRow) -> Result<(), Rejection> {
    if bmc.address.is_empty() && bmc.driver != "null" {
        return Err(invalid("bmc.address", "is missing; give the BMC's IP address or name"));
    }
    if !bmc.address.is_empty() && !is_address(&bmc.address) {
        return Err(invalid("bmc.address", "is not an IP address or host name; give it without scheme, port, path or spaces"));
    }
    if bmc.port == Some(0) {
        return Err(invalid("bmc.port", "0 is not a port; use 1 to 65535"));
    }
    if bmc.username.chars().count() > MAX_USERNAME || bmc.username.chars().any(char::is_control) {
        return Err(invalid("bmc.username", format!("use at most {MAX_USERNAME} characters, no control characters")));
    }
    check_options(&bmc.options)
}

fn check_options(options: &BTreeMap<String, String>) -> Result<(), Rejection> {
    if options.len() > MAX_OPTIONS {
        return Err(invalid("bmc.options", format!("at most {MAX_OPTIONS} options")));
    }
    for (key, value) in options {
        if key.is_empty() || key.len() > MAX_OPTION_KEY || value.len() > MAX_OPTION_VALUE {
            return Err(invalid(
                "bmc.options",
                format!("names take 1 to {MAX_OPTION_KEY} bytes, values at most {MAX_OPTION_VALUE}"),
            ));
        }
        if key.chars().chain(value.chars()).any(char::is_control) {
            return Err(invalid("bmc.options", "no control characters"));
        }
    }
    if options.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_OPTIONS_LEN {
        return Err(invalid("bmc.options", format!("at most {MAX_OPTIONS_LEN} bytes altogether")));
    }
    Ok(())
}

/// An IP literal (IPv6 with or without brackets) or a host name by RFC 1123 §2.1.
fn is_address(text: &str) -> bool {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => text.parse::<IpAddr>().is_ok() || is_host_name(text),
    }
}

fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name whose last label is a number would be read as a broken IPv4 address by others.
    let is_number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && !is_number
}

#[cfg(test)]
mod tests {
    use picket_common::seal::Sealed;

    use super::*;

    fn change(driver: &str, address: &str) -> BmcChange {
        BmcChange { driver: Some(driver.into()), address: Some(address.into()), ..BmcChange::default() }
    }

    fn sealed(key: u8) -> SealedPassword {
        SealedPassword { agent_key: SealingKey([key; 32]), agent: Sealed(vec![key]), recovery: Sealed(vec![0]) }
    }

    const HERE: Sealing = Sealing { key: Some(SealingKey([1; 32])), moved: false };

    fn base() -> BmcRow {
        let change = BmcChange { username: Some("admin".into()), password: Some(sealed(1)), ..change("ipmi", "10.0.0.1") };
        merge(None, change, true, HERE, 1).unwrap()
    }

    #[test]
    fn addresses() {
        for good in ["10.0.0.1", "::1", "[fe80::1]", "bmc", "r07n01-bmc.example.com", "3com.example", "a1"] {
            assert!(merge(None, change("ipmi", good), true, HERE, 1).is_ok(), "{good}");
        }
        for bad in [
            "",
            " ",
            "10.0.0.1 ",
            "10.0.0",
            "10.0.0.256",
            "http://bmc",
            "bmc/redfish",
            "bmc:623",
            "[::1",
            "[10.0.0.1]",
            "-bmc",
            "bmc-",
            "a..b",
            "bmc.",
            "b_c",
            "bmc\n",
            "ä",
            "fe80::1%eth0",
            &"a".repeat(64),
            &"a.".repeat(130),
        ] {
            let rejection = merge(None, change("ipmi", bad), true, HERE, 1).unwrap_err();
            assert!(matches!(rejection, Rejection::Invalid { field: "bmc.address", .. }), "{bad:?}: {rejection}");
        }
    }

    #[test]
    fn drivers_in_any_case() {
        for (given, kept) in
            [("IPMI", "ipmi"), ("Redfish", "redfish"), ("null", "null"), ("IPMITOOL", "ipmitool"), ("Exec", "exec")]
        {
            assert_eq!(merge(None, change(given, "bmc"), true, HERE, 1).unwrap().driver, kept);
        }
        for bad in ["", "ipmitool2", "ipmi "] {
            let rejection = merge(None, change(bad, "bmc"), true, HERE, 1).unwrap_err();
            assert!(rejection.to_string().contains("ipmi, redfish, ipmitool, exec, null"), "{rejection}");
        }
        assert!(merge(None, BmcChange::default(), true, HERE, 1).is_err(), "a driver is needed");
        assert!(merge(None, BmcChange { driver: Some("null".into()), ..BmcChange::default() }, true, HERE, 1).is_ok());
    }

    #[test]
    fn bounds() {
        let with = |edit: fn(&mut BmcChange)| {
            let mut change = change("ipmi", "bmc");
            edit(&mut change);
            merge(None, change, true, HERE, 1)
        };
        for (wanted, edit) in [
            ("bmc.port", (|c| c.port = Some(0)) as fn(&mut BmcChange)),
            ("bmc.username", |c| c.username = Some("u".repeat(65))),
            ("bmc.username", |c| c.username = Some("a\u{7}b".into())),
            ("bmc.options", |c| c.options = Some((0..33).map(|n| (n.to_string(), String::new())).collect())),
            ("bmc.options", |c| c.options = Some([("k".repeat(65), String::new())].into())),
            ("bmc.options", |c| c.options = Some([("k".into(), "v".repeat(513))].into())),
            ("bmc.options", |c| c.options = Some((0..17).map(|n| (n.to_string(), "v".repeat(512))).collect())),
        ] {
            match with(edit) {
                Err(Rejection::Invalid { field, .. }) => assert_eq!(field, wanted),
                other => panic!("{wanted}: {other:?}"),
            }
        }
        assert!(with(|c| c.username = Some("u".repeat(64))).is_ok());
    }

    #[test]
    fn a_password_belongs_to_address_user_and_agent() {
        let moved = Sealing { key: Some(SealingKey([2; 32])), moved: true };
        let nobody = Sealing { key: None, moved: true };
        let rejoined = Sealing { key: Some(SealingKey([2; 32])), moved: false };
        let none = BmcChange::default;
        let address = || BmcChange { address: Some("10.0.0.2".into()), ..none() };
        let user = || BmcChange { username: Some("root".into()), ..none() };
        let given = |mut change: BmcChange, key| {
            change.password = Some(sealed(key));
            change
        };
        let again = Err("again");
        for (n, (change, sealing, wanted)) in [
            (none(), HERE, Ok(1)),
            (address(), HERE, again),
            (user(), HERE, again),
            (given(address(), 1), HERE, Ok(1)),
            (given(user(), 2), HERE, again),
            (none(), moved, again),
            (none(), nobody, again),
            (none(), rejoined, Ok(1)),
            (given(none(), 2), moved, Ok(2)),
            (given(none(), 1), nobody, Err("no agent")),
        ]
        .into_iter()
        .enumerate()
        {
            let got = match merge(Some(&base()), change, false, sealing, 1) {
                Ok(bmc) => Ok(bmc.password.unwrap().agent_key.0[0]),
                Err(Rejection::PasswordNeededAgain(_)) => Err("again"),
                Err(Rejection::Refused(Refusal::RackWithoutAgent)) => Err("no agent"),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(got, wanted, "row {n}");
        }
        let null = BmcChange { driver: Some("null".into()), address: Some(String::new()), ..none() };
        assert_eq!(merge(Some(&base()), null, false, HERE, 1).unwrap().password, None, "null needs none");
    }

    #[test]
    fn a_patch_keeps_the_rest_and_a_put_does_not() {
        let base = BmcRow { port: Some(6230), options: [("suite".into(), "3".into())].into(), ..base() };
        let patched = merge(Some(&base), BmcChange { port: Some(623), ..BmcChange::default() }, false, HERE, 1).unwrap();
        assert_eq!(patched, BmcRow { port: Some(623), revision: base.revision + 1, ..base.clone() });
        let same = merge(Some(&base), BmcChange::default(), false, HERE, 1).unwrap();
        assert_eq!(same, base, "no change, no revision");
        let change = BmcChange { username: Some("admin".into()), ..change("ipmi", "10.0.0.1") };
        let put = merge(Some(&base), change, true, HERE, 1).unwrap();
        assert_eq!((put.port, put.options.len(), put.password.is_some()), (None, 0, true));
    }
}
