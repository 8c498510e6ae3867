//! Links: where a BMC says that something is. A [`Path`] is always on the BMC itself, so a hostile link cannot lead elsewhere.

use std::fmt;

/// The longest path that is followed, in bytes.
const MAX_PATH_LEN: usize = 1024;

/// Scheme, name and port of one BMC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: &'static str,
    authority: String,
    default_port: bool,
}

impl Origin {
    /// The origin `scheme://host:port`; an IPv6 `host` comes without brackets.
    #[must_use]
    pub fn new(scheme: &'static str, host: &str, port: u16) -> Self {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_ascii_lowercase() };
        let default_port = port == if scheme == "https" { 443 } else { 80 };
        Self { scheme, authority: format!("{host}:{port}"), default_port }
    }

    /// What stands in the `Host` header: the port only where it is not the scheme's own.
    #[must_use]
    pub fn host_header(&self) -> &str {
        if self.default_port { self.without_port() } else { &self.authority }
    }

    fn without_port(&self) -> &str {
        self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host)
    }

    fn is(&self, scheme: &str, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        scheme.eq_ignore_ascii_case(self.scheme)
            && (authority == self.authority || (self.default_port && authority == self.without_port()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)
    }
}

/// An absolute path (and query) on the BMC, safe to put into a request line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(String);

impl Path {
    /// Where every Redfish service begins (DSP0266 §6.2).
    #[must_use]
    pub fn service_root() -> Self {
        Self("/redfish/v1/".to_owned())
    }

    /// `text` if it is an absolute path of printable characters; a fragment is cut off.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let path = text.split('#').next()?;
        let printable = path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'"' | b'<' | b'>'));
        let absolute = path.starts_with('/') && !path.starts_with("//");
        (absolute && printable && path.len() <= MAX_PATH_LEN).then(|| Self(path.to_owned()))
    }

    /// A path or a URL, provided that it stays at `origin`.
    #[must_use]
    pub fn at(origin: &Origin, reference: &str) -> Option<Self> {
        match split_url(reference) {
            None => Self::parse(reference),
            Some((scheme, authority, path)) => origin.is(scheme, authority).then(|| Self::parse(path)).flatten(),
        }
    }

    /// The path of a path or URL, whatever host it names. For names of resources only (BMCs put their own idea of their host name
    /// into `Location`), never for redirects.
    #[must_use]
    pub fn of(reference: &str) -> Option<Self> {
        Self::parse(split_url(reference).map_or(reference, |(_, _, path)| path))
    }

    /// The path one segment further; the segment is percent-encoded.
    #[must_use]
    pub fn child(&self, segment: &str) -> Self {
        let mut path = self.0.trim_end_matches('/').to_owned();
        path.push('/');
        for byte in segment.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                path.push(char::from(byte));
            } else {
                path.push_str(&format!("%{byte:02X}"));
            }
        }
        Self(path)
    }

    /// The last segment: a resource's id in almost every implementation.
    #[must_use]
    pub fn last_segment(&self) -> &str {
        self.0.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
    }

    /// Whether both paths differ by at most a trailing slash.
    #[must_use]
    pub fn is_same_resource(&self, other: &Self) -> bool {
        self.0.trim_end_matches('/') == other.0.trim_end_matches('/')
    }

    /// The path as text; always begins with `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Scheme, authority and path of an absolute or network-path reference.
fn split_url(reference: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = match reference.strip_prefix("//") {
        Some(rest) => ("https", rest),
        None => reference.split_once("://").filter(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()))?,
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    Some((scheme, authority, if path.is_empty() { "/" } else { path }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_on_the_bmc() {
        let origin = Origin::new("https", "10.0.0.9", 443);
        for (reference, expected) in [
            ("/redfish/v1/Systems/1", Some("/redfish/v1/Systems/1")),
            ("/redfish/v1/Systems/1#/Oem", Some("/redfish/v1/Systems/1")),
            ("https://10.0.0.9/redfish/v1", Some("/redfish/v1")),
            ("HTTPS://10.0.0.9:443/redfish/v1", Some("/redfish/v1")),
            ("//10.0.0.9/x", Some("/x")),
            ("https://10.0.0.9", Some("/")),
            ("https://10.0.0.10/redfish/v1", None),
            ("https://10.0.0.9:8443/redfish/v1", None),
            ("http://10.0.0.9/redfish/v1", None),
            ("https://10.0.0.9@evil/redfish/v1", None),
            ("//evil/redfish/v1", None),
            ("https://10.0.0.9.evil/", None),
            ("redfish/v1", None),
            ("/a b", None),
            ("/a\r\nX: y", None),
            ("/\\evil", None),
            ("", None),
            ("javascript:alert(1)", None),
        ] {
            assert_eq!(Path::at(&origin, reference).as_ref().map(Path::as_str), expected, "{reference:?}");
        }
        assert_eq!(Path::of("https://ilo.example/redfish/v1/S/1").unwrap().as_str(), "/redfish/v1/S/1");
        assert!(Path::parse(&format!("/{}", "a".repeat(MAX_PATH_LEN))).is_none());
    }

    #[test]
    fn hosts_are_named_as_http_wants() {
        for (scheme, host, port, header, text) in [
            ("https", "10.0.0.9", 443, "10.0.0.9", "10.0.0.9:443"),
            ("https", "BMC.rack", 8443, "bmc.rack:8443", "bmc.rack:8443"),
            ("https", "fd00::1", 443, "[fd00::1]", "[fd00::1]:443"),
            ("http", "10.0.0.9", 443, "10.0.0.9:443", "10.0.0.9:443"),
        ] {
            let origin = Origin::new(scheme, host, port);
            assert_eq!((origin.host_header(), origin.to_string().as_str()), (header, text));
        }
    }

    #[test]
    fn segments_are_encoded() {
        let systems = Path::parse("/redfish/v1/Systems/").unwrap();
        assert_eq!(systems.child("../a b?").as_str(), "/redfish/v1/Systems/..%2Fa%20b%3F");
        assert_eq!(systems.child("x").last_segment(), "x");
        assert!(systems.is_same_resource(&Path::parse("/redfish/v1/Systems").unwrap()));
    }
}
