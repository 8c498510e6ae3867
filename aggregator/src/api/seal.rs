//! BMC passwords, sealed the moment they arrive: to the agent in charge and to the site's recovery key. After this nothing in
//! the aggregator can read them. Never logs, keeps or shows one.

use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use picket_common::api::{BmcBody, HostBody, HostPatch};
use picket_common::command::Refusal;
use picket_common::id::{HostId, RackId};
use picket_common::seal::{Belongs, SealingKey, seal};
use picket_common::secret::Secret;

use super::not_found;
use super::problem::ApiError;
use crate::fleet::request::{BmcChange, HostChange, HostSpec};
use crate::fleet::view::SealedPassword;
use crate::fleet::{Rejection, View};

/// Longest password, in bytes: Redfish allows 255 in practice; drivers check their own shorter limits.
const MAX_PASSWORD: usize = 255;

/// A whole host, its password sealed.
pub fn host_spec(view: &View, recovery: &SealingKey, host: &HostId, body: HostBody) -> Result<HostSpec, ApiError> {
    let bmc = body.bmc.map(|bmc| {
        let address = bmc.address.clone().unwrap_or_default();
        let username = bmc.username.clone().unwrap_or_default();
        change(view, recovery, &body.rack, bmc, Belongs::Host { host, address: &address, username: &username })
    });
    Ok(HostSpec {
        cluster: body.cluster,
        zone: body.zone,
        bmc: bmc.transpose()?,
        rack: body.rack,
        maintenance: body.maintenance,
        poll_interval: body.poll_interval,
        labels: body.labels,
    })
}

/// Changes to a host, the password sealed for the address and user that result.
pub fn host_change(view: &View, recovery: &SealingKey, host: &HostId, patch: HostPatch) -> Result<HostChange, ApiError> {
    let row = view.hosts.get(host).ok_or_else(|| not_found("host", host))?;
    let bmc = patch.bmc.map(|bmc| {
        let now = row.bmc.as_ref();
        let address = bmc.address.clone().or_else(|| now.map(|bmc| bmc.address.clone())).unwrap_or_default();
        let username = bmc.username.clone().or_else(|| now.map(|bmc| bmc.username.clone())).unwrap_or_default();
        let rack = patch.rack.as_ref().unwrap_or(&row.rack);
        change(view, recovery, rack, bmc, Belongs::Host { host, address: &address, username: &username })
    });
    Ok(HostChange {
        bmc: bmc.transpose()?,
        cluster: patch.cluster,
        rack: patch.rack,
        maintenance: patch.maintenance,
        poll_interval: patch.poll_interval,
        labels: patch.labels,
    })
}

/// `belongs` holds what results from the change: the core checks address and user, and keeps them exactly as they are here.
fn change(view: &View, recovery: &SealingKey, rack: &RackId, bmc: BmcBody, belongs: Belongs<'_>) -> Result<BmcChange, ApiError> {
    let password = match &bmc.password {
        None => None,
        Some(password) => {
            check(password)?;
            Some(sealed(agent_key(view, rack)?, recovery, belongs, password)?)
        }
    };
    Ok(BmcChange {
        driver: bmc.driver,
        address: bmc.address,
        port: bmc.port,
        username: bmc.username,
        password,
        options: bmc.options,
    })
}

fn check(password: &Secret<String>) -> Result<(), ApiError> {
    let wrong = |text| Err(ApiError::invalid("bmc.password", text));
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
    let to = |key: &SealingKey| {
        seal(key, belongs, password, &mut UnwrapErr(SysRng)).map_err(|error| {
            tracing::error!(error = %error, "password not sealed");
            ApiError::Internal
        })
    };
    Ok(SealedPassword { agent_key, agent: to(&agent_key)?, recovery: to(recovery)? })
}
