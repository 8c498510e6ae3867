//! Waiting for a daemon as systemd does: it says itself when it is ready. Nothing is looked at again and again.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Far above what a start takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Hears what one process says of itself.
pub struct Ready(UnixDatagram);

impl Ready {
    /// A socket in `folder`, which `command` is told of.
    pub fn of(command: &mut Command, folder: &Path) -> Self {
        let path = folder.join("notify");
        drop(std::fs::remove_file(&path));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        command.env("NOTIFY_SOCKET", path);
        Self(socket)
    }

    /// Until it is ready: its addresses are written by then.
    pub fn wait(&self) {
        let mut said = [0; 4096];
        loop {
            let length = self.0.recv(&mut said).expect("the daemon says that it is ready");
            if said[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return;
            }
        }
    }
}
