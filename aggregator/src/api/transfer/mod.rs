//! Hosts in files: `POST /v1/import/hosts` and `GET /v1/export/hosts`, as CSV or as JSON, one host a line. An import is done as a
//! whole or not at all unless its asker wants each line for itself. Passwords come in and never go out.
//!
//! ```text
//! bytes ─▶ table | lines ─▶ entries ─▶ authorise, seal ─▶ Request::ImportHosts ─▶ Answer::Imported ─▶ a line each
//! ```

mod entry;
mod export;
mod form;
mod import;
mod lines;
mod table;

pub(super) use export::export;
pub(super) use import::import;

#[cfg(test)]
mod tests;
