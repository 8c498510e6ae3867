//! Health check `tcp`: a TCP connection is accepted. Says nothing on it. A host whose kernel works accepts for a program that hangs.

use super::dial::Dialler;
use super::turn::Turn;
use crate::sign::Sign;

pub(super) async fn knock(dialler: &Dialler, address: &str, port: u16, turn: &Turn<'_>) -> Result<Sign, Sign> {
    dialler.connect(address, port, turn).await.map(|_connected| Sign::Alive)
}
