//! Checks `witness`: a host's own witness says whether it is well; its neighbours' witnesses say what its files look like.
//!
//! Mutual TLS: what answers must have the certificate of that host's witness, so that one host cannot answer for another.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::StatusCode;
use hyper::body::Bytes;
use picket_common::ha::settings::{MAX_NEIGHBOURS, Neighbour, WITNESS_PORT};
use picket_common::id::HostId;
use serde::de::DeserializeOwned;

use super::dial::Dialler;
use super::http::{exchange, request, secured};
use super::told::Told;
use super::turn::Turn;
use crate::sign::witness::{FILES, FilesAsked, FilesSeen, HEALTH, Health, MOST_BYTES};
use crate::sign::{Sign, Stamp};
use crate::tls::ToWitness;

/// A witness to call.
struct Call<'a> {
    dialler: &'a Dialler,
    tls: &'a ToWitness,
    host: &'a HostId,
    address: &'a str,
    port: Option<u16>,
}

/// Asks the host's own witness. Only its word, a refusal or silence is an answer: an error it tells is not.
pub(super) async fn health(
    dialler: &Dialler,
    tls: &ToWitness,
    address: &str,
    port: Option<u16>,
    told: &Told,
    turn: &Turn<'_>,
) -> Result<Sign, Sign> {
    let host = turn.job.host.as_ref().ok_or_else(|| Sign::CannotTell("it is about no host".into()))?;
    let call = Call { dialler, tls, host, address, port };
    let silent = || turn.silent(format!("the witness at {address} does not answer within {}", turn.given()));
    let health: Health = turn.within(call.ask("GET", HEALTH, Bytes::new(), turn)).await.unwrap_or_else(|| Err(silent()))?;
    match health {
        Health { host: of, .. } if of != *host => Err(Sign::CannotTell(format!("the witness at {address} speaks for {of}"))),
        Health { well: true, files, .. } => {
            told.keep(host, files);
            Ok(Sign::Alive)
        }
        Health { well: false, .. } => Ok(Sign::Dead("its witness says that it is not well".into())),
    }
}

/// Asks all neighbours at once; the first that sees any of the files is believed.
pub(super) async fn files(
    dialler: &Dialler,
    tls: &ToWitness,
    paths: &[String],
    neighbours: &[Neighbour],
    turn: &Turn<'_>,
) -> Result<Sign, Sign> {
    let cannot = |why: String| Sign::CannotTell(why);
    let asked = FilesAsked { paths: paths.to_vec() };
    let body = Bytes::from(serde_json::to_vec(&asked).map_err(|error| cannot(error.to_string()))?);
    let asked: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
    let ask = |neighbour: &Neighbour| {
        let Neighbour { host, address, port } = neighbour.clone();
        let (body, asked) = (body.clone(), &asked);
        async move {
            let call = Call { dialler, tls, host: &host, address: &address, port };
            let seen: FilesSeen = call.ask("POST", FILES, body, turn).await.map_err(|sign| format!("{host}: {}", why(&sign)))?;
            checked(seen, asked).map_err(|error| format!("{host}: {error}"))
        }
    };
    // Of oneself a host is not asked: its silence is why the question is asked.
    let others = neighbours.iter().filter(|neighbour| Some(&neighbour.host) != turn.job.host.as_ref());
    let mut asking: FuturesUnordered<_> = others.take(MAX_NEIGHBOURS).map(ask).collect();
    if asking.is_empty() {
        return Err(cannot("there is no neighbour to ask".into()));
    }
    let mut failures = Vec::new();
    let first = async {
        while let Some(answer) = asking.next().await {
            match answer {
                Ok(stamps) => return Some(stamps),
                Err(failure) => failures.push(failure),
            }
        }
        None
    };
    match turn.within(first).await {
        Some(Some(stamps)) => Ok(Sign::Stamps(stamps)),
        Some(None) => Err(cannot(format!("no neighbour can tell: {}", failures.join("; ")))),
        None => Err(cannot(format!("no neighbour answered within {}; {}", turn.given(), failures.join("; ")))),
    }
}

/// What a neighbour saw, if it is an answer to the question.
fn checked(seen: FilesSeen, asked: &BTreeSet<&str>) -> Result<Vec<Stamp>, &'static str> {
    let told: BTreeSet<&str> = seen.files.iter().map(|stamp| stamp.path.as_str()).collect();
    if seen.files.is_empty() {
        return Err("it sees none of the files");
    }
    if told.len() != seen.files.len() || !told.is_subset(asked) {
        return Err("it tells of other files");
    }
    Ok(seen.files)
}

fn why(sign: &Sign) -> &str {
    match sign {
        Sign::Dead(why) | Sign::CannotTell(why) => why,
        Sign::Alive | Sign::Stamps(_) => "",
    }
}

impl Call<'_> {
    async fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: Bytes, turn: &Turn<'_>) -> Result<T, Sign> {
        let cannot = |why: String| Sign::CannotTell(format!("the witness at {} {why}", self.address));
        let stream = self.dialler.connect(self.address, self.port.unwrap_or(WITNESS_PORT), turn).await?;
        let stream = secured(stream, self.tls.of(self.host), self.address).await?;
        let request = request(method, self.host.as_str(), path, body).ok_or_else(|| cannot("cannot be asked".into()))?;
        let (status, answer) = exchange(stream, request, MOST_BYTES).await?;
        if status != StatusCode::OK {
            let said: String = String::from_utf8_lossy(&answer).chars().take(200).collect();
            return Err(cannot(format!("answers {status}: {said}")));
        }
        serde_json::from_slice(&answer).map_err(|error| cannot(format!("answers what is no answer: {error}")))
    }
}
