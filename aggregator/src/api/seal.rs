//! BMC passwords, sealed the moment they arrive: to the agent in charge and to the site's recovery key. After this nothing in
//! the aggregator can read them. Never logs, keeps or shows one, but for a generated one that its asker wants to see, once.

use getrandom::SysRng;
use getrandom::rand_core::{TryRng, UnwrapErr};
use picket_common::api::{
    BmcBody, BmcDefaultsBody, BmcPatch, ChangePasswordRequest, ClusterBody, ClusterPatch, Field, HostBody, HostPatch,
};
use picket_common::command::Refusal;
use picket_common::driver;
use picket_common::id::{ClusterId, HostId, RackId, ZoneId};
use picket_common::seal::{Belongs, Sealed, SealingKey, seal};
use picket_common::secret::Secret;

use super::not_found;
use super::problem::ApiError;
use crate::fleet::request::{BmcChange, ClusterChange, ClusterSpec, DefaultsChange, Given, GivenShared, HostChange, HostSpec};
use crate::fleet::view::{HostRow, SealedPassword, SharedPassword};
use crate::fleet::{Rejection, View, effective, json};

/// Longest password, in bytes: Redfish allows 255 in practice; drivers check their own shorter limits.
const MAX_PASSWORD: usize = 255;
/// Longest password that IPMI 2.0 can set (§22.30), in bytes, and that of BMCs which keep 16.
const MAX_IPMI: usize = 20;
const MAX_IPMI_SHORT: usize = 16;
/// Length of a generated password: what every BMC keeps. 62^16 is above 2^95.
const GENERATED: usize = 16;

/// A whole host, its password sealed.
pub fn host_spec(view: &View, recovery: &SealingKey, host: &HostId, body: HostBody) -> Result<HostSpec, ApiError> {
    let HostBody { cluster, zone, rack, bmc, maintenance, poll_interval, action_timeout, labels, ha } = body;
    let bmc = bmc.map(|bmc| {
        let BmcBody { driver, address, port, username, password, options } = bmc;
        let names = Names { address: address.as_deref(), username: username.as_deref() };
        let place = Place { host, cluster: &cluster, rack: &rack, kept: None };
        let password = given(view, recovery, &place, names, password.into())?;
        Ok::<_, ApiError>(BmcChange {
            driver: driver.into(),
            address: address.into(),
            port: port.into(),
            username: username.into(),
            password,
            options: options.into(),
            repin: false,
        })
    });
    Ok(HostSpec { bmc: bmc.transpose()?, cluster, zone, rack, maintenance, poll_interval, action_timeout, labels, ha })
}

/// Changes to a host, the password sealed for the address and user that result.
pub fn host_change(view: &View, recovery: &SealingKey, host: &HostId, patch: HostPatch) -> Result<HostChange, ApiError> {
    let row = view.hosts.get(host).ok_or_else(|| not_found("host", host))?;
    let HostPatch { cluster, rack, bmc, maintenance, poll_interval, action_timeout, labels, ha } = patch;
    let bmc = match bmc {
        Field::Keep => Field::Keep,
        Field::Unset => Field::Unset,
        Field::Set(bmc) => {
            let place = Place {
                host,
                cluster: cluster.as_ref().unwrap_or(&row.cluster),
                rack: rack.as_ref().unwrap_or(&row.rack),
                kept: Some(row),
            };
            Field::Set(bmc_change(view, recovery, &place, bmc)?)
        }
    };
    Ok(HostChange { bmc, cluster, rack, maintenance, poll_interval, action_timeout, labels, ha })
}

fn bmc_change(view: &View, recovery: &SealingKey, place: &Place<'_>, bmc: BmcPatch) -> Result<BmcChange, ApiError> {
    let BmcPatch { driver, address, port, username, password, options, repin } = bmc;
    let own = place.kept.and_then(|row| row.bmc.as_ref());
    let names = Names {
        address: address.value().map(String::as_str).or(own.map(|own| own.address.as_str())),
        username: match &username {
            Field::Set(name) if !name.is_empty() => Some(name),
            Field::Set(_) | Field::Keep => own.and_then(|own| own.username.as_deref()),
            Field::Unset => None,
        },
    };
    let password = given(view, recovery, place, names, password)?;
    Ok(BmcChange { driver, address, port, username, password, options, repin })
}

/// Where a host will be.
struct Place<'a> {
    host: &'a HostId,
    cluster: &'a ClusterId,
    rack: &'a RackId,
    /// As it is now, where what is left out stays.
    kept: Option<&'a HostRow>,
}

/// What results for a host as far as it is its own; the core checks it, and keeps it exactly as it is here.
#[derive(Clone, Copy)]
struct Names<'a> {
    address: Option<&'a str>,
    username: Option<&'a str>,
}

/// A password, sealed for the address and the name that result: a name that is not given is the cluster's.
fn given(
    view: &View,
    recovery: &SealingKey,
    place: &Place<'_>,
    names: Names<'_>,
    password: Field<Secret<String>>,
) -> Result<Field<Given>, ApiError> {
    let password = match password {
        Field::Keep => return Ok(Field::Keep),
        Field::Unset => return Ok(Field::Unset),
        // An empty field says nothing.
        Field::Set(password) if password.expose().is_empty() => return Ok(Field::Keep),
        Field::Set(password) => password,
    };
    check("bmc.password", &password)?;
    let inherited = || view.clusters.get(place.cluster).and_then(|cluster| cluster.bmc.username.as_deref());
    let username = names.username.filter(|name| !name.is_empty()).or_else(inherited).unwrap_or_default().to_owned();
    let kept = || place.kept.and_then(|row| row.bmc.as_ref()).map(|own| own.address.as_str());
    let address = names.address.filter(|address| !address.is_empty()).or_else(kept).unwrap_or_default().to_owned();
    let belongs = Belongs::Host { host: place.host, address: &address, username: &username };
    let password = sealed(agent_key(view, place.rack)?, recovery, belongs, &password)?;
    Ok(Field::Set(Given { address, username, password }))
}

/// A whole cluster, its password sealed.
pub fn cluster_spec(view: &View, recovery: &SealingKey, cluster: &ClusterId, body: ClusterBody) -> Result<ClusterSpec, ApiError> {
    let ClusterBody { zone, poll_interval, action_timeout, bmc, ha, brakes } = body;
    let bmc = defaults(view, recovery, cluster, &zone, None, bmc)?;
    Ok(ClusterSpec { zone, poll_interval, action_timeout, bmc, ha, brakes })
}

/// Changes to a cluster, the password sealed for the user that results.
pub fn cluster_change(
    view: &View,
    recovery: &SealingKey,
    cluster: &ClusterId,
    patch: ClusterPatch,
) -> Result<ClusterChange, ApiError> {
    let row = view.clusters.get(cluster).ok_or_else(|| not_found("cluster", cluster))?;
    let ClusterPatch { zone, poll_interval, action_timeout, bmc, ha, brakes } = patch;
    let its_zone = zone.as_ref().unwrap_or(&row.zone);
    let bmc = defaults(view, recovery, cluster, its_zone, row.bmc.username.as_deref(), bmc)?;
    Ok(ClusterChange { zone, poll_interval, action_timeout, bmc, ha, brakes })
}

fn defaults(
    view: &View,
    recovery: &SealingKey,
    cluster: &ClusterId,
    zone: &ZoneId,
    kept: Option<&str>,
    body: Field<BmcDefaultsBody>,
) -> Result<Field<DefaultsChange>, ApiError> {
    let BmcDefaultsBody { driver, port, username, password, options } = match body {
        Field::Keep => return Ok(Field::Keep),
        Field::Unset => return Ok(Field::Unset),
        Field::Set(body) => body,
    };
    let password = match password {
        Field::Keep => Field::Keep,
        Field::Unset => Field::Unset,
        Field::Set(password) if password.expose().is_empty() => Field::Keep,
        Field::Set(password) => {
            check("bmc.password", &password)?;
            let username = username.value().map(String::as_str).filter(|name| !name.is_empty()).or(kept);
            let username = username.unwrap_or_default().to_owned();
            let belongs = Belongs::Cluster { cluster, username: &username };
            let password = shared(view, recovery, zone, belongs, &password)?;
            Field::Set(GivenShared { username, password })
        }
    };
    Ok(Field::Set(DefaultsChange { driver, port, username, password, options }))
}

/// A password sealed to every agent of a zone's racks.
fn shared(
    view: &View,
    recovery: &SealingKey,
    zone: &ZoneId,
    belongs: Belongs<'_>,
    password: &Secret<String>,
) -> Result<SharedPassword, ApiError> {
    let keys = json::agents_of_zone(view, zone).map(|agent| agent.sealing_key);
    let copies: Result<_, ApiError> = keys.map(|key| Ok((key, sealed_to(&key, belongs, password)?))).collect();
    Ok(SharedPassword { copies: copies?, recovery: sealed_to(recovery, belongs, password)? })
}

/// A new password for a host's BMC, sealed for what is in force; and itself, if it was generated and is to be shown.
pub fn new_password(
    view: &View,
    recovery: &SealingKey,
    host: &HostId,
    body: &ChangePasswordRequest,
) -> Result<(Given, Option<Secret<String>>), ApiError> {
    let row = view.hosts.get(host).ok_or_else(|| not_found("host", host))?;
    let refused = |refusal| ApiError::Rejected(Rejection::Refused(refusal));
    let bmc = effective::bmc(view, row).ok_or_else(|| refused(Refusal::HostNotConfigured))?;
    let generated = if body.password.is_some() { None } else { Some(generate()?) };
    let Some(password) = body.password.as_ref().or(generated.as_ref()) else { return Err(ApiError::Internal) };
    check("password", password)?;
    if password.expose().is_empty() {
        return Err(ApiError::invalid("password", "is empty; leave it out to have one generated"));
    }
    let driver = bmc.driver.value;
    if driver == driver::IPMI.name || driver == driver::IPMITOOL.name {
        let options = effective::options(view, row);
        let is_short = options.get("password_length").is_some_and(|option| option.value == "16");
        let most = if is_short { MAX_IPMI_SHORT } else { MAX_IPMI };
        if password.expose().len() > most {
            return Err(ApiError::invalid("password", format!("is longer than the {most} bytes that IPMI can set on this BMC")));
        }
    }
    let (address, username) = (bmc.address.to_owned(), bmc.username.value.to_owned());
    let belongs = Belongs::Host { host, address: &address, username: &username };
    let password = sealed(agent_key(view, &row.rack)?, recovery, belongs, password)?;
    Ok((Given { address, username, password }, generated.filter(|_| body.return_generated)))
}

const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Letters and digits, each as likely as any other, with at least one of each kind: BMCs may ask for that.
fn generate() -> Result<Secret<String>, ApiError> {
    loop {
        let mut bytes = zeroize::Zeroizing::new([0; 4 * GENERATED]);
        SysRng.try_fill_bytes(&mut *bytes).map_err(|error| {
            tracing::error!(error = %error, "no randomness");
            ApiError::Internal
        })?;
        // What lies above the last whole multiple of 62 would favour some.
        let fair = bytes.iter().filter(|byte| usize::from(**byte) < 256 - 256 % LETTERS.len());
        let letters = fair.filter_map(|byte| LETTERS.get(usize::from(*byte) % LETTERS.len()));
        let text = Secret::new(letters.take(GENERATED).map(|byte| char::from(*byte)).collect::<String>());
        let has = |kind: fn(&u8) -> bool| text.expose().bytes().any(|byte| kind(&byte));
        let is_mixed = has(u8::is_ascii_digit) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
        if text.expose().len() == GENERATED && is_mixed {
            return Ok(text);
        }
    }
}

fn check(field: &'static str, password: &Secret<String>) -> Result<(), ApiError> {
    let wrong = |text| Err(ApiError::invalid(field, text));
    match password.expose().as_bytes() {
        bytes if bytes.len() > MAX_PASSWORD => wrong("is longer than 255 bytes"),
        bytes if bytes.contains(&0) => wrong("holds a NUL byte"),
        _ => Ok(()),
    }
}

fn agent_key(view: &View, rack: &RackId) -> Result<SealingKey, ApiError> {
    let row = view.racks.get(rack).ok_or_else(|| ApiError::invalid("rack", format!("there is no rack {rack:?}")))?;
    let agent = row.agent.as_ref().and_then(|agent| view.agents.get(agent));
    agent.map(|agent| agent.sealing_key).ok_or(ApiError::Rejected(Rejection::Refused(Refusal::RackWithoutAgent)))
}

fn sealed(
    agent_key: SealingKey,
    recovery: &SealingKey,
    belongs: Belongs<'_>,
    password: &Secret<String>,
) -> Result<SealedPassword, ApiError> {
    let (agent, recovery) = (sealed_to(&agent_key, belongs, password)?, sealed_to(recovery, belongs, password)?);
    Ok(SealedPassword { agent_key, agent, recovery })
}

fn sealed_to(key: &SealingKey, belongs: Belongs<'_>, password: &Secret<String>) -> Result<Sealed, ApiError> {
    seal(key, belongs, password, &mut UnwrapErr(SysRng)).map_err(|error| {
        tracing::error!(error = %error, "password not sealed");
        ApiError::Internal
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_passwords_are_mixed_and_never_the_same() {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let password = generate().unwrap();
            let text = password.expose();
            assert_eq!(text.len(), GENERATED);
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            assert!(text.bytes().any(|byte| byte.is_ascii_digit()) && text.bytes().any(|byte| byte.is_ascii_lowercase()));
            assert!(seen.insert(text.to_owned()));
        }
    }
}
