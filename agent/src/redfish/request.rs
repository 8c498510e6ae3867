//! The few requests that are ever made.

use serde_json::{Value, json};

use super::link::Path;

/// HTTP methods in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Safe: may be repeated.
    Get,
    /// Never repeated on its own.
    Post,
    /// Repeated only with another ETag, when the BMC says that nothing was done because of the first.
    Patch,
    /// For sessions only.
    Delete,
}

/// A request before credentials and host are added. Its body may hold a password, so it is never shown.
#[derive(Clone)]
pub struct Request {
    /// How.
    pub method: Method,
    /// Where on the BMC.
    pub path: Path,
    /// JSON, for POST and PATCH.
    pub body: Option<String>,
    /// What `If-Match` says, for PATCH.
    pub if_match: Option<String>,
}

impl Request {
    /// Reads the service root (DSP0266 §6.2): needs no login.
    #[must_use]
    pub fn root() -> Self {
        Self::get(Path::service_root())
    }

    /// Reads `path`.
    #[must_use]
    pub const fn get(path: Path) -> Self {
        Self { method: Method::Get, path, body: None, if_match: None }
    }

    /// Makes a session (DSP0266 §13.3.4).
    #[must_use]
    pub fn log_in(sessions: Path, username: &str, password: &str) -> Self {
        Self::post(sessions, &json!({ "UserName": username, "Password": password }))
    }

    /// Ends a session.
    #[must_use]
    pub const fn log_out(session: Path) -> Self {
        Self { method: Method::Delete, path: session, body: None, if_match: None }
    }

    /// `ComputerSystem.Reset`.
    #[must_use]
    pub fn reset(target: Path, reset_type: &str) -> Self {
        Self::post(target, &json!({ "ResetType": reset_type }))
    }

    fn post(path: Path, body: &Value) -> Self {
        Self { method: Method::Post, path, body: Some(body.to_string()), if_match: None }
    }

    /// Changes members of `path`.
    #[must_use]
    pub fn patch(path: Path, body: &Value) -> Self {
        Self { method: Method::Patch, path, body: Some(body.to_string()), if_match: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_whatever_the_password() {
        let path = Path::parse("/s").unwrap();
        let login = Request::log_in(path.clone(), "root", "a\"b\\c");
        assert_eq!(login.body.unwrap(), r#"{"Password":"a\"b\\c","UserName":"root"}"#);
        assert_eq!(Request::reset(path, "ForceOff").body.unwrap(), r#"{"ResetType":"ForceOff"}"#);
        assert_eq!(Request::root().path.as_str(), "/redfish/v1/");
    }
}
