//! The Redfish side of a BMC.

/// Redfish sessions of one BMC.
#[derive(Debug, Default)]
pub(crate) struct Web;
impl Web {
    pub(crate) fn forget_sessions(&mut self) {}
    pub(crate) fn forget_sessions_of(&mut self, _user: &str) {}
}
