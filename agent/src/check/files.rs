//! Activity checks `files` and `heartbeat`: what files that the agent can see look like.

use super::turn::Turn;
use crate::sign::Sign;
use crate::stamps::Looker;

/// Storage that hangs, a file that may not be looked at, and files that are all gone (an unmounted storage looks like that) say nothing.
pub(super) async fn look(looker: &Looker, paths: Vec<String>, turn: &Turn<'_>) -> Result<Sign, Sign> {
    turn.begin()?;
    let seen = turn.within(looker.look(paths)).await;
    let stamps = seen.ok_or_else(|| turn.silent(format!("the storage does not answer within {}", turn.given())))?;
    match stamps {
        Ok(stamps) if stamps.is_empty() => Err(Sign::CannotTell("none of the files is there".into())),
        Ok(stamps) => Ok(Sign::Stamps(stamps)),
        Err(error) => Err(Sign::CannotTell(error.to_string())),
    }
}
