//! The sign of life on shared storage: a file written again and again. On a thread of its own, for storage may hang.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::thread::{Builder, sleep};
use std::time::Duration;

use rustix::fs::OFlags;

use super::settings::Heartbeat;
use crate::clock;

/// Starts writing; nothing ends it but the process.
pub(super) fn start(heartbeat: Heartbeat) -> io::Result<()> {
    let thread = Builder::new().name("heartbeat".into()).spawn(move || {
        let interval = Duration::from(heartbeat.interval);
        let mut failing = false;
        for count in 1_u64.. {
            match beat(&heartbeat.path.0, count) {
                Ok(()) if failing => {
                    tracing::info!(path = heartbeat.path.0, "heartbeat is written again");
                    failing = false;
                }
                Err(error) if !failing => {
                    tracing::warn!(path = heartbeat.path.0, %error, "heartbeat not written");
                    failing = true;
                }
                Ok(()) | Err(_) => {}
            }
            sleep(interval);
        }
    });
    thread.map(drop)
}

/// Writes the counter and the time, down to the disk. A symbolic link is not followed: others may write on that storage too.
fn beat(path: &str, count: u64) -> io::Result<()> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    let mut file: File = OpenOptions::new().create(true).write(true).truncate(true).mode(0o644).custom_flags(flags).open(path)?;
    file.write_all(format!("{count} {}\n", clock::now().wall).as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_beat_says_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("beat");
        let text = path.to_str().unwrap();
        for count in [9, 10] {
            beat(text, count).unwrap();
            assert!(std::fs::read_to_string(&path).unwrap().starts_with(&format!("{count} 20")));
        }
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        beat(link.to_str().unwrap(), 1).unwrap_err();
        assert_eq!(std::fs::read_to_string(victim).unwrap(), "precious");
    }
}
