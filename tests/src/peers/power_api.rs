//! A machine behind an HTTP power API, in the manner of CloudStack's: `GET /client/api?command=…&id=…` with basic
//! authentication. It does what it is told at once, and remembers what that was.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Power, User};
use crate::ports;

/// The machine's id.
pub const MACHINE: &str = "vm-1";

/// A running API; it ends with the test's process.
#[derive(Debug)]
pub struct PowerApi {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    is_on: bool,
    user: User,
    commands: Vec<String>,
    refused: usize,
}

impl PowerApi {
    /// Starts an API for one machine, which is on.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        let address = ports::tcp()?;
        let listener = TcpListener::bind(address)?;
        let state = State { is_on: true, user: User::new("api-key", "secret-key"), commands: Vec::new(), refused: 0 };
        let state = Arc::new(Mutex::new(state));
        let served = Arc::clone(&state);
        std::thread::Builder::new().name("power-api".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Err(error) = serve(stream, &served) {
                    tracing::debug!(%error, "power API");
                }
            }
        })?;
        Ok(Self { address, state })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whom it serves.
    #[must_use]
    pub fn user(&self) -> User {
        self.locked(|state| state.user.clone())
    }

    /// The machine's power.
    #[must_use]
    pub fn power(&self) -> Power {
        self.locked(|state| if state.is_on { Power::On } else { Power::Off })
    }

    /// What was commanded since last asked, but for questions.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        self.locked(|state| std::mem::take(&mut state.commands))
    }

    /// How many requests had the wrong key.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.locked(|state| state.refused)
    }

    fn locked<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().context("no request")??;
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let (status, body) = answer(&request, &headers, &mut state.lock().unwrap_or_else(PoisonError::into_inner));
    let reason = if status == 200 { "OK" } else { "Refused" };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    Ok(())
}

fn answer(request: &str, headers: &[String], state: &mut State) -> (u16, String) {
    let wanted = format!("Basic {}", STANDARD.encode(format!("{}:{}", state.user.name, state.user.password)));
    if !headers.iter().any(|line| {
        line.split_once(": ").is_some_and(|(name, value)| name.eq_ignore_ascii_case("authorization") && value == wanted)
    }) {
        state.refused += 1;
        return (401, "{}".into());
    }
    let query = request.strip_prefix("GET /client/api?").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let value = |name: &str| query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    let (Some((_, command)), Some((_, MACHINE))) = (value("command"), value("id")) else { return (404, "{}".into()) };
    match command {
        "listVirtualMachines" => {}
        "startVirtualMachine" => state.is_on = true,
        "stopVirtualMachine" => state.is_on = false,
        "rebootVirtualMachine" => {}
        _ => return (400, "{}".into()),
    }
    if command != "listVirtualMachines" {
        state.commands.push(command.to_owned());
    }
    let word = if state.is_on { "Running" } else { "Stopped" };
    (200, format!("{{\"virtualmachine\": [{{\"id\": \"{MACHINE}\", \"state\": \"{word}\"}}]}}\n"))
}
