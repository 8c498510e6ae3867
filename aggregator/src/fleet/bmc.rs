//! A host's own BMC settings: checked word by word, merged with what was there. Names and addresses are only looked at, never
//! resolved.

use std::collections::BTreeMap;
use std::net::IpAddr;

use picket_common::api::Field;
use picket_common::command::Refusal;
use picket_common::driver;
use picket_common::seal::SealingKey;

use super::effective;
use super::request::{BmcChange, Given, Rejection};
use super::view::{BmcRow, ClusterRow, SealedPassword};

const MAX_USERNAME: usize = 64;
/// With those of its cluster and of the site a host has no more than the wire takes.
const MAX_OPTIONS: usize = 20;
const MAX_OPTION_KEY: usize = 64;
const MAX_OPTION_VALUE: usize = 512;
/// Keeps even the largest possible rack within the most parts an assignment may have, with 4 KiB more that a host inherits.
const MAX_OPTIONS_LEN: usize = 8 * 1024;

/// Where the host was and where it will be, as far as its password is concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealing {
    /// The sealing key of the agent that will be in charge.
    pub(super) key: Option<SealingKey>,
    /// Whether another agent will be in charge than before.
    pub(super) moved: bool,
}

/// What a host's own settings stand on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground<'a> {
    /// The cluster it will be in.
    pub(super) cluster: Option<&'a ClusterRow>,
    /// Its agents.
    pub(super) sealing: Sealing,
    /// Revision of settings that are new.
    pub(super) fresh: u64,
}

pub(super) fn invalid(field: &'static str, text: impl Into<String>) -> Rejection {
    Rejection::Invalid { field, text: text.into() }
}

/// An empty text says nothing.
pub(super) fn unless_empty(field: Field<String>) -> Field<String> {
    match field {
        Field::Set(text) if text.is_empty() => Field::Keep,
        field => field,
    }
}

/// The settings after `change`. `whole` = fields that are not given are inherited from then on; else they stay.
pub(super) fn merge(base: Option<&BmcRow>, change: BmcChange, whole: bool, ground: Ground<'_>) -> Result<BmcRow, Rejection> {
    let BmcChange { driver, address, port, username, password, options, repin: _ } = change;
    let username = unless_empty(username);
    let kept = base.filter(|_| !whole);
    let leaves_login = match &username {
        Field::Unset => true,
        Field::Keep => whole && ground.cluster.is_some_and(|cluster| cluster.bmc.username.is_some()),
        Field::Set(_) => false,
    };
    let driver = unless_empty(driver).over(kept.and_then(|bmc| bmc.driver.clone()));
    let mut bmc = BmcRow {
        driver: driver.map(|driver| check_driver(&driver)).transpose()?,
        address: unless_empty(address).over(kept.map(|bmc| bmc.address.clone())).unwrap_or_default(),
        port: port.over(kept.and_then(|bmc| bmc.port)),
        username: username.over(kept.and_then(|bmc| bmc.username.clone())),
        password: None,
        options: options.over(kept.map(|bmc| bmc.options.clone())).unwrap_or_default(),
        revision: base.map_or(ground.fresh, |base| base.revision),
    };
    check(&bmc, ground.cluster)?;
    match password {
        Field::Set(given) => set_login(&mut bmc, given, ground)?,
        Field::Unset => {}
        Field::Keep if leaves_login => {}
        Field::Keep => bmc.password = kept_password(base, &bmc, ground)?,
    }
    Ok(bmc)
}

fn again<T>(why: &str) -> Result<T, Rejection> {
    Err(Rejection::PasswordNeededAgain(why.into()))
}

/// A password of its own makes the login name the host's own as well: if the cluster's changed later, the pair would be torn.
fn set_login(bmc: &mut BmcRow, given: Given, ground: Ground<'_>) -> Result<(), Rejection> {
    let username = effective::bmc_of(ground.cluster, bmc).username.value.to_owned();
    match ground.sealing.key {
        None => return Err(Rejection::Refused(Refusal::RackWithoutAgent)),
        Some(key) if key != given.password.agent_key => return again("the rack's agent changed while it was sealed"),
        Some(_) => {}
    }
    if given.address != bmc.address || given.username != username {
        return again("the BMC's address or user name changed while it was sealed");
    }
    bmc.username = Some(username);
    bmc.password = Some(given.password);
    Ok(())
}

/// The stored password, if it still opens where the host will be.
fn kept_password(base: Option<&BmcRow>, bmc: &BmcRow, ground: Ground<'_>) -> Result<Option<SealedPassword>, Rejection> {
    let Some((base, password)) = base.and_then(|base| base.password.clone().map(|password| (base, password))) else {
        return Ok(None);
    };
    if effective::bmc_of(ground.cluster, bmc).driver.value == driver::NULL.name {
        return Ok(None);
    }
    if base.address != bmc.address {
        return again("it is bound to the BMC's address, which changes");
    }
    if base.username != bmc.username {
        return again("it is bound to the BMC's user name, which changes");
    }
    stays_open(&password, ground.sealing)?;
    Ok(Some(password))
}

/// Whether a stored password can be opened by the agent that will be in charge, as far as that changes.
pub(super) fn stays_open(password: &SealedPassword, sealing: Sealing) -> Result<(), Rejection> {
    if sealing.moved && sealing.key != Some(password.agent_key) {
        return again("it is sealed to the agent of the host's rack, which changes");
    }
    Ok(())
}

/// The driver's name as it is kept.
pub(super) fn check_driver(driver: &str) -> Result<String, Rejection> {
    let shown = || driver.chars().take(32).collect::<String>();
    let found = driver::find(driver);
    found
        .map(|driver| driver.name.to_owned())
        .ok_or_else(|| invalid("bmc.driver", format!("{:?} is not a driver; use one of {}", shown(), driver::names())))
}

fn check(bmc: &BmcRow, cluster: Option<&ClusterRow>) -> Result<(), Rejection> {
    let driver = effective::bmc_of(cluster, bmc).driver.value;
    if driver.is_empty() {
        let text = format!("is missing, and the cluster has none either; use one of {}", driver::names());
        return Err(invalid("bmc.driver", text));
    }
    if bmc.address.is_empty() && driver != driver::NULL.name {
        return Err(invalid("bmc.address", "is missing; give the BMC's IP address or name"));
    }
    if !bmc.address.is_empty() && !is_address(&bmc.address) {
        return Err(invalid("bmc.address", "is not an IP address or host name; give it without scheme, port, path or spaces"));
    }
    check_port(bmc.port)?;
    check_username(bmc.username.as_deref().unwrap_or_default())?;
    check_options(&bmc.options, MAX_OPTIONS, MAX_OPTIONS_LEN)
}

pub(super) fn check_port(port: Option<u16>) -> Result<(), Rejection> {
    if port == Some(0) { Err(invalid("bmc.port", "0 is not a port; use 1 to 65535")) } else { Ok(()) }
}

pub(super) fn check_username(username: &str) -> Result<(), Rejection> {
    if username.chars().count() > MAX_USERNAME || username.chars().any(char::is_control) {
        return Err(invalid("bmc.username", format!("use at most {MAX_USERNAME} characters, no control characters")));
    }
    Ok(())
}

/// Whether options are at most so many, and altogether at most so long.
pub(super) fn check_options(options: &BTreeMap<String, String>, most: usize, longest: usize) -> Result<(), Rejection> {
    if options.len() > most {
        return Err(invalid("bmc.options", format!("at most {most} options")));
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
    if options.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > longest {
        return Err(invalid("bmc.options", format!("at most {longest} bytes altogether")));
    }
    Ok(())
}

/// An IP literal (IPv6 with or without brackets), or a host name by RFC 1123 §2.1 with the underscores that real inventories have:
/// DNS itself takes them (RFC 2181 §11), and neither a URL nor a command line gives them a meaning.
pub(super) fn is_address(text: &str) -> bool {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => text.parse::<IpAddr>().is_ok() || is_host_name(text),
    }
}

fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name whose last label is a number would be read as a broken IPv4 address by others.
    let is_number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && !is_number
}

#[cfg(test)]
mod tests {
    use picket_common::id::ClusterId;
    use picket_common::seal::Sealed;

    use super::super::view::{DefaultsRow, SharedPassword};
    use super::*;

    fn change(driver: &str, address: &str) -> BmcChange {
        BmcChange { driver: Field::Set(driver.into()), address: Field::Set(address.into()), ..BmcChange::default() }
    }

    fn given(key: u8, address: &str, username: &str) -> Given {
        let password = SealedPassword { agent_key: SealingKey([key; 32]), agent: Sealed(vec![key]), recovery: Sealed(vec![0]) };
        Given { address: address.into(), username: username.into(), password }
    }

    const HERE: Sealing = Sealing { key: Some(SealingKey([1; 32])), moved: false };
    const ALONE: Ground<'_> = Ground { cluster: None, sealing: HERE, fresh: 1 };

    fn base() -> BmcRow {
        let password = Field::Set(given(1, "10.0.0.1", "admin"));
        let change = BmcChange { username: Field::Set("admin".into()), password, ..change("ipmi", "10.0.0.1") };
        merge(None, change, true, ALONE).unwrap()
    }

    /// A cluster with a driver and a login.
    fn cluster() -> ClusterRow {
        let password = SharedPassword { copies: vec![(SealingKey([1; 32]), Sealed(vec![1]))], recovery: Sealed(vec![0]) };
        ClusterRow {
            id: "c1".parse::<ClusterId>().unwrap(),
            zone: "z1".parse().unwrap(),
            oobm: None,
            poll_interval: None,
            action_timeout: None,
            bmc: DefaultsRow {
                driver: Some("ipmi".into()),
                username: Some("root".into()),
                password: Some(password),
                ..DefaultsRow::default()
            },
        }
    }

    #[test]
    fn addresses() {
        for good in ["10.0.0.1", "::1", "[fe80::1]", "bmc", "r07n01-bmc.example.com", "3com.example", "a1", "ipmi_node-01", "_a.b_"]
        {
            assert!(merge(None, change("ipmi", good), true, ALONE).is_ok(), "{good}");
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
            "bmc\n",
            "ä",
            "fe80::1%eth0",
            &"a".repeat(64),
            &"a.".repeat(130),
        ] {
            let rejection = merge(None, change("ipmi", bad), true, ALONE).unwrap_err();
            assert!(matches!(rejection, Rejection::Invalid { field: "bmc.address", .. }), "{bad:?}: {rejection}");
        }
    }

    #[test]
    fn drivers_in_any_case() {
        for (given, kept) in
            [("IPMI", "ipmi"), ("Redfish", "redfish"), ("null", "null"), ("IPMITOOL", "ipmitool"), ("Exec", "exec")]
        {
            assert_eq!(merge(None, change(given, "bmc"), true, ALONE).unwrap().driver.as_deref(), Some(kept));
        }
        for bad in ["", "ipmitool2", "ipmi "] {
            let rejection = merge(None, change(bad, "bmc"), true, ALONE).unwrap_err();
            assert!(rejection.to_string().contains("ipmi, redfish, ipmitool, exec, null"), "{rejection}");
        }
        assert!(merge(None, BmcChange::default(), true, ALONE).is_err(), "a driver is needed");
        let null = BmcChange { driver: Field::Set("null".into()), ..BmcChange::default() };
        assert!(merge(None, null, true, ALONE).is_ok());
        let (cluster, address) = (cluster(), BmcChange { address: Field::Set("bmc".into()), ..BmcChange::default() });
        let inherits = merge(None, address, true, Ground { cluster: Some(&cluster), ..ALONE }).unwrap();
        assert_eq!((inherits.driver, inherits.username, inherits.password), (None, None, None), "what is inherited is not copied");
    }

    #[test]
    fn bounds() {
        let with = |edit: fn(&mut BmcChange)| {
            let mut change = change("ipmi", "bmc");
            edit(&mut change);
            merge(None, change, true, ALONE)
        };
        for (wanted, edit) in [
            ("bmc.port", (|c| c.port = Field::Set(0)) as fn(&mut BmcChange)),
            ("bmc.username", |c| c.username = Field::Set("u".repeat(65))),
            ("bmc.username", |c| c.username = Field::Set("a\u{7}b".into())),
            ("bmc.options", |c| c.options = Field::Set((0..21).map(|n| (n.to_string(), String::new())).collect())),
            ("bmc.options", |c| c.options = Field::Set([("k".repeat(65), String::new())].into())),
            ("bmc.options", |c| c.options = Field::Set([("k".into(), "v".repeat(513))].into())),
            ("bmc.options", |c| c.options = Field::Set((0..17).map(|n| (n.to_string(), "v".repeat(512))).collect())),
        ] {
            match with(edit) {
                Err(Rejection::Invalid { field, .. }) => assert_eq!(field, wanted),
                other => panic!("{wanted}: {other:?}"),
            }
        }
        assert!(with(|c| c.username = Field::Set("u".repeat(64))).is_ok());
    }

    #[test]
    fn a_password_belongs_to_address_user_and_agent() {
        let moved = Sealing { key: Some(SealingKey([2; 32])), moved: true };
        let nobody = Sealing { key: None, moved: true };
        let rejoined = Sealing { key: Some(SealingKey([2; 32])), moved: false };
        let none = BmcChange::default;
        let address = || BmcChange { address: Field::Set("10.0.0.2".into()), ..none() };
        let user = || BmcChange { username: Field::Set("root".into()), ..none() };
        let with = |mut change: BmcChange, password: Given| {
            change.password = Field::Set(password);
            change
        };
        let (there, as_root) = (|key| given(key, "10.0.0.2", "admin"), |key| given(key, "10.0.0.1", "root"));
        let again = Err("again");
        for (n, (change, sealing, wanted)) in [
            (none(), HERE, Ok(1)),
            (address(), HERE, again),
            (user(), HERE, again),
            (with(address(), there(1)), HERE, Ok(1)),
            (with(user(), as_root(2)), HERE, again),
            (with(address(), as_root(1)), HERE, again),
            (with(none(), there(1)), HERE, again),
            (none(), moved, again),
            (none(), nobody, again),
            (none(), rejoined, Ok(1)),
            (with(none(), given(2, "10.0.0.1", "admin")), moved, Ok(2)),
            (with(none(), given(1, "10.0.0.1", "admin")), nobody, Err("no agent")),
        ]
        .into_iter()
        .enumerate()
        {
            let got = match merge(Some(&base()), change, false, Ground { sealing, ..ALONE }) {
                Ok(bmc) => Ok(bmc.password.unwrap().agent_key.0[0]),
                Err(Rejection::PasswordNeededAgain(_)) => Err("again"),
                Err(Rejection::Refused(Refusal::RackWithoutAgent)) => Err("no agent"),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(got, wanted, "row {n}");
        }
        let null = BmcChange { driver: Field::Set("null".into()), address: Field::Unset, ..none() };
        assert_eq!(merge(Some(&base()), null, false, ALONE).unwrap().password, None, "null needs none");
    }

    #[test]
    fn name_and_password_come_and_go_together() {
        let cluster = cluster();
        let ground = Ground { cluster: Some(&cluster), ..ALONE };
        let none = BmcChange::default;
        let pair = |bmc: BmcRow| (bmc.username, bmc.password.is_some());
        let own = || BmcRow { driver: None, ..base() };
        let bare = || BmcRow { username: None, password: None, ..own() };
        let set = |username: &str| Field::Set(username.to_owned());
        for (name, base, change, whole, wanted) in [
            ("nothing given", bare(), none(), false, Ok((None, false))),
            (
                "a password takes the cluster's name along",
                bare(),
                BmcChange { password: Field::Set(given(1, "10.0.0.1", "root")), ..none() },
                false,
                Ok((Some("root"), true)),
            ),
            (
                "sealed for another name",
                bare(),
                BmcChange { password: Field::Set(given(1, "10.0.0.1", "admin")), ..none() },
                false,
                Err(()),
            ),
            (
                "a name of its own has no password",
                bare(),
                BmcChange { username: set("x"), ..none() },
                false,
                Ok((Some("x"), false)),
            ),
            ("no name, no password", own(), BmcChange { username: Field::Unset, ..none() }, false, Ok((None, false))),
            ("no password, but the name", own(), BmcChange { password: Field::Unset, ..none() }, false, Ok((Some("admin"), false))),
            ("an empty name says nothing", own(), BmcChange { username: set(""), ..none() }, false, Ok((Some("admin"), true))),
            ("a whole without a name inherits", own(), BmcChange { address: set("10.0.0.1"), ..none() }, true, Ok((None, false))),
            (
                "a whole with the same name keeps",
                own(),
                BmcChange { address: set("10.0.0.1"), username: set("admin"), ..none() },
                true,
                Ok((Some("admin"), true)),
            ),
        ] {
            let got = merge(Some(&base), change, whole, ground).map(pair);
            let got = got.as_ref().map(|(username, password)| (username.as_deref(), *password)).map_err(|_| ());
            assert_eq!(got, wanted, "{name}");
        }
        let whole = BmcChange { address: set("10.0.0.1"), driver: set("ipmi"), ..none() };
        let lost = merge(Some(&own()), whole, true, ALONE);
        assert!(matches!(lost, Err(Rejection::PasswordNeededAgain(_))), "nothing to inherit: most likely a mistake: {lost:?}");
    }

    #[test]
    fn a_patch_keeps_the_rest_and_a_put_does_not() {
        let base = BmcRow { port: Some(6230), options: [("suite".into(), "3".into())].into(), ..base() };
        let patched = merge(Some(&base), BmcChange { port: Field::Set(623), ..BmcChange::default() }, false, ALONE).unwrap();
        assert_eq!(patched, BmcRow { port: Some(623), ..base.clone() });
        let same = merge(Some(&base), BmcChange::default(), false, ALONE).unwrap();
        assert_eq!(same, base, "no change");
        let unset = BmcChange { port: Field::Unset, options: Field::Unset, ..BmcChange::default() };
        let unset = merge(Some(&base), unset, false, ALONE).unwrap();
        assert_eq!((unset.port, unset.options.len(), unset.password.is_some()), (None, 0, true));
        let change = BmcChange { username: Field::Set("admin".into()), ..change("ipmi", "10.0.0.1") };
        let put = merge(Some(&base), change, true, ALONE).unwrap();
        assert_eq!((put.port, put.options.len(), put.password.is_some()), (None, 0, true));
    }
}
