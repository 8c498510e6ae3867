//! Zones, clusters, racks and hosts: lists, one, made, changed, removed.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use axum::Json as Shown;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use imbl::OrdMap;
use picket_common::api::{Cluster, ClusterBody, ClusterPatch, Host, HostBody, HostPatch, Page, Rack, RackBody, Zone, ZoneBody};
use picket_common::ha::{HaName, HostStatus};
use picket_common::id::{ClusterId, HostId, RackId, ZoneId};
use picket_common::power::PowerState;

use super::etag::{Tagged, changed};
use super::extract::{self, Id, Json, Params, page_token};
use super::problem::ApiError;
use super::who::Who;
use super::{Api, not_found, seal, select};
use crate::fleet::etag::ETag;
use crate::fleet::view::HostRow;
use crate::fleet::{Request, View, ha, json};

type Answered<T> = Result<Shown<T>, ApiError>;

/// The page of `rows` that is asked for: those that `show` shows.
pub(super) fn paged<K, R, T>(rows: &OrdMap<K, Arc<R>>, page: extract::Page<K>, show: impl Fn(&R) -> Option<T>) -> Page<T>
where
    K: Ord + Clone + std::fmt::Display,
{
    let start = page.after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut shown = rows.range((start, Bound::Unbounded)).filter_map(|(id, row)| Some((id, show(row)?)));
    let mut items = Vec::new();
    let mut last = None;
    for (id, item) in shown.by_ref().take(page.limit) {
        items.push(item);
        last = Some(id);
    }
    let next_page_token = last.filter(|_| shown.next().is_some()).map(page_token);
    Page { items, next_page_token }
}

const PAGE: [&str; 2] = ["limit", "page_token"];

// Zones.

pub(super) async fn zones(State(api): State<Api>, Who(who): Who, params: Params) -> Answered<Page<Zone>> {
    let page = params.only(&PAGE)?.page()?;
    let view = api.view(&who);
    Ok(Shown(paged(&view.zones, page, |row| Some(json::zone_json(&view, row)))))
}

pub(super) async fn zone(State(api): State<Api>, Who(who): Who, Id(id): Id<ZoneId>) -> Result<Tagged<Zone>, ApiError> {
    zone_of(&api.view(&who), &id).ok_or_else(|| not_found("zone", &id))
}

fn zone_of(view: &View, id: &ZoneId) -> Option<Tagged<Zone>> {
    view.zones.get(id).map(|row| Tagged { tag: ETag::zone(view, row), shown: json::zone_json(view, row) })
}

pub(super) async fn put_zone(
    State(api): State<Api>,
    Who(who): Who,
    Id(id): Id<ZoneId>,
    Json(body): Json<ZoneBody>,
) -> Result<Response, ApiError> {
    let answer = api.change(&who, Request::PutZone(id.clone(), body)).await?;
    Ok(changed(&answer, zone_of(&api.view(&who), &id)))
}

pub(super) async fn delete_zone(State(api): State<Api>, Who(who): Who, Id(id): Id<ZoneId>) -> Result<StatusCode, ApiError> {
    api.change(&who, Request::DeleteZone(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

// Clusters.

pub(super) async fn clusters(State(api): State<Api>, Who(who): Who, params: Params) -> Answered<Page<Cluster>> {
    let params = params.only(&["limit", "page_token", "zone"])?;
    let (page, zone) = (params.page()?, params.parse::<ZoneId>("zone")?);
    let view = api.view(&who);
    let wanted = |zone_of: &ZoneId| zone.as_ref().is_none_or(|zone| zone == zone_of);
    Ok(Shown(paged(&view.clusters, page, |row| wanted(&row.zone).then(|| json::cluster_json(&view, row)))))
}

pub(super) async fn cluster(State(api): State<Api>, Who(who): Who, Id(id): Id<ClusterId>) -> Result<Tagged<Cluster>, ApiError> {
    cluster_of(&api.view(&who), &id).ok_or_else(|| not_found("cluster", &id))
}

fn cluster_of(view: &View, id: &ClusterId) -> Option<Tagged<Cluster>> {
    view.clusters.get(id).map(|row| Tagged { tag: ETag::cluster(view, row), shown: json::cluster_json(view, row) })
}

pub(super) async fn put_cluster(
    State(api): State<Api>,
    Who(who): Who,
    Id(id): Id<ClusterId>,
    Json(body): Json<ClusterBody>,
) -> Result<Response, ApiError> {
    let spec = seal::cluster_spec(&api.context.view.load(), &api.recovery, &id, body)?;
    let answer = api.change(&who, Request::PutCluster(id.clone(), spec)).await?;
    Ok(changed(&answer, cluster_of(&api.view(&who), &id)))
}

pub(super) async fn patch_cluster(
    State(api): State<Api>,
    Who(who): Who,
    Id(id): Id<ClusterId>,
    Json(patch): Json<ClusterPatch>,
) -> Result<Response, ApiError> {
    // Sealing takes every agent of the zone, seen or not; what is not seen is not there to be changed.
    let seen = api.view(&who);
    seen.clusters.get(&id).ok_or_else(|| not_found("cluster", &id))?;
    let change = seal::cluster_change(&api.context.view.load(), &api.recovery, &id, patch)?;
    let answer = api.change(&who, Request::PatchCluster(id.clone(), change)).await?;
    Ok(changed(&answer, cluster_of(&api.view(&who), &id)))
}

pub(super) async fn delete_cluster(State(api): State<Api>, Who(who): Who, Id(id): Id<ClusterId>) -> Result<StatusCode, ApiError> {
    api.change(&who, Request::DeleteCluster(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

// Racks.

pub(super) async fn racks(State(api): State<Api>, Who(who): Who, params: Params) -> Answered<Page<Rack>> {
    let params = params.only(&["limit", "page_token", "zone"])?;
    let (page, zone) = (params.page()?, params.parse::<ZoneId>("zone")?);
    let view = api.view(&who);
    let wanted = |zone_of: &ZoneId| zone.as_ref().is_none_or(|zone| zone == zone_of);
    Ok(Shown(paged(&view.racks, page, |row| wanted(&row.zone).then(|| json::rack_json(row)))))
}

pub(super) async fn rack(State(api): State<Api>, Who(who): Who, Id(id): Id<RackId>) -> Result<Tagged<Rack>, ApiError> {
    rack_of(&api.view(&who), &id).ok_or_else(|| not_found("rack", &id))
}

fn rack_of(view: &View, id: &RackId) -> Option<Tagged<Rack>> {
    view.racks.get(id).map(|row| Tagged { tag: ETag::rack(row), shown: json::rack_json(row) })
}

pub(super) async fn put_rack(
    State(api): State<Api>,
    Who(who): Who,
    Id(id): Id<RackId>,
    Json(body): Json<RackBody>,
) -> Result<Response, ApiError> {
    let answer = api.change(&who, Request::PutRack(id.clone(), body)).await?;
    Ok(changed(&answer, rack_of(&api.view(&who), &id)))
}

pub(super) async fn delete_rack(State(api): State<Api>, Who(who): Who, Id(id): Id<RackId>) -> Result<StatusCode, ApiError> {
    api.change(&who, Request::DeleteRack(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

// Hosts.

/// Words of the parameter `state`.
const STATES: [(&str, PowerState); 4] =
    [("on", PowerState::On), ("off", PowerState::Off), ("unknown", PowerState::Unknown), ("disabled", PowerState::Disabled)];

/// Parameters of a [`Filter`].
pub(super) const FILTERS: [&str; 7] = ["select", "state", "ha", "host_status", "zone", "cluster", "rack"];

/// Which hosts of a list are wanted.
pub(super) struct Filter {
    select: Option<BTreeSet<HostId>>,
    state: Option<PowerState>,
    ha: Option<HaName>,
    status: Option<HostStatus>,
    zone: Option<ZoneId>,
    cluster: Option<ClusterId>,
    rack: Option<RackId>,
}

impl Filter {
    pub(super) fn of(view: &View, params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            select: params.value("select").map(|text| select::hosts(view, text)).transpose()?,
            state: params.one_of("state", &STATES)?,
            ha: params.one_of("ha", &HaName::ALL.map(|state| (state.as_str(), state)))?,
            status: params.one_of("host_status", &HostStatus::ALL.map(|status| (status.as_str(), status)))?,
            zone: params.parse("zone")?,
            cluster: params.parse("cluster")?,
            rack: params.parse("rack")?,
        })
    }

    pub(super) fn wants(&self, view: &View, row: &HostRow) -> bool {
        let power = || view.power.get(&row.id).map_or(PowerState::Disabled, |power| power.power);
        self.select.as_ref().is_none_or(|hosts| hosts.contains(&row.id))
            && self.zone.as_ref().is_none_or(|zone| *zone == row.zone)
            && self.cluster.as_ref().is_none_or(|cluster| *cluster == row.cluster)
            && self.rack.as_ref().is_none_or(|rack| *rack == row.rack)
            && self.state.is_none_or(|state| state == power())
            && self.ha.is_none_or(|state| state == ha::ha_name(view, row))
            && self.status.is_none_or(|status| status == ha::host_status(view, row))
    }
}

pub(super) async fn hosts(State(api): State<Api>, Who(who): Who, params: Params) -> Answered<Page<Host>> {
    let params = params.only(&[&PAGE[..], &FILTERS].concat())?;
    let view = api.view(&who);
    let (page, filter) = (params.page()?, Filter::of(&view, &params)?);
    Ok(Shown(paged(&view.hosts, page, |row| filter.wants(&view, row).then(|| json::host_json(&view, row)))))
}

pub(super) async fn host(State(api): State<Api>, Who(who): Who, Id(id): Id<HostId>) -> Result<Tagged<Host>, ApiError> {
    host_of(&api.view(&who), &id).ok_or_else(|| not_found("host", &id))
}

pub(super) fn host_of(view: &View, id: &HostId) -> Option<Tagged<Host>> {
    view.hosts.get(id).map(|row| Tagged { tag: ETag::host(view, row), shown: json::whole_host_json(view, row) })
}

pub(super) async fn put_host(
    State(api): State<Api>,
    Who(who): Who,
    Id(id): Id<HostId>,
    Json(body): Json<HostBody>,
) -> Result<Response, ApiError> {
    let spec = seal::host_spec(&api.view(&who), &api.recovery, &id, body)?;
    let answer = api.change(&who, Request::PutHost(id.clone(), spec)).await?;
    Ok(changed(&answer, host_of(&api.view(&who), &id)))
}

pub(super) async fn patch_host(
    State(api): State<Api>,
    Who(who): Who,
    Id(id): Id<HostId>,
    Json(patch): Json<HostPatch>,
) -> Result<Response, ApiError> {
    let change = seal::host_change(&api.view(&who), &api.recovery, &id, patch)?;
    let answer = api.change(&who, Request::PatchHost(id.clone(), change)).await?;
    Ok(changed(&answer, host_of(&api.view(&who), &id)))
}

pub(super) async fn delete_host(State(api): State<Api>, Who(who): Who, Id(id): Id<HostId>) -> Result<StatusCode, ApiError> {
    api.change(&who, Request::DeleteHost(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}
