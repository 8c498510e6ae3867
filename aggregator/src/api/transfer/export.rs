//! `GET /v1/export/hosts`: hosts as they are set, to be imported again. What a host inherits is not in its line, and no password is.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use picket_common::api::{BmcRecord, HostRecord};

use super::super::Api;
use super::super::extract::Params;
use super::super::inventory::{FILTERS, Filter};
use super::super::problem::ApiError;
use super::super::who::Who;
use super::form::Form;
use super::table;
use crate::fleet::View;
use crate::fleet::effective;
use crate::fleet::view::{BmcRow, HostRow};

/// Hosts that are written at a time.
const AT_ONCE: usize = 500;

pub async fn export(State(api): State<Api>, Who(who): Who, params: Params, headers: HeaderMap) -> Result<Response, ApiError> {
    let form = Form::wanted(&headers)?;
    let params = params.only(&FILTERS)?;
    let view = api.view(&who);
    let filter = Filter::of(&view, &params)?;
    let rows: Vec<Arc<HostRow>> = view.hosts.values().filter(|row| filter.wants(&view, row)).cloned().collect();
    let parts: Vec<Vec<Arc<HostRow>>> = rows.chunks(AT_ONCE).map(<[_]>::to_vec).collect();
    let head = if form == Form::Table { table::head() } else { Vec::new() };
    let parts = parts.into_iter().map(move |rows| written(form, &rows.iter().map(|row| record(&view, row)).collect::<Vec<_>>()));
    let text = stream::iter(std::iter::once(head).chain(parts).map(Ok::<_, std::convert::Infallible>));
    Ok(([(header::CONTENT_TYPE, form.media_type())], Body::from_stream(text)).into_response())
}

pub(super) fn written(form: Form, hosts: &[HostRecord]) -> Vec<u8> {
    match form {
        Form::Table => table::rows(hosts.iter()),
        Form::Lines => {
            let line = |host: &HostRecord| [serde_json::to_vec(host).unwrap_or_default(), b"\n".to_vec()].concat();
            hosts.iter().flat_map(line).collect()
        }
    }
}

/// What is a host's own.
pub(super) fn record(view: &View, row: &HostRow) -> HostRecord {
    let HostRow { id, zone, cluster, rack, oobm, enablement: _, bmc, maintenance, poll_interval, action_timeout, labels } =
        row.clone();
    HostRecord {
        id,
        zone,
        cluster,
        rack,
        oobm_enabled: oobm.unwrap_or(false),
        bmc: bmc.map(|bmc| bmc_record(view, row, bmc)),
        maintenance,
        poll_interval,
        action_timeout,
        labels,
    }
}

fn bmc_record(view: &View, row: &HostRow, bmc: BmcRow) -> BmcRecord {
    let BmcRow { driver, address, port, username, password: _, options, revision: _ } = bmc;
    let filled = |text: &String| !text.is_empty();
    let own = BmcRecord { driver, address: Some(address).filter(filled), port, username: username.filter(filled), options };
    if own != BmcRecord::default() {
        return own;
    }
    // All of it is inherited: cells without a word would say that there is no BMC.
    let driver = effective::bmc(view, row).map(|bmc| bmc.driver.value.to_owned());
    BmcRecord { driver, ..own }
}
