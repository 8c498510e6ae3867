//! What `fence_picket` logs: on stderr, where cluster managers read why a fence failed, and in the debug file. Results alone go to
//! stdout.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Mutex;

use picket_aggregator::clock;

use crate::options::{Misuse, Telling};

/// The log.
#[derive(Debug)]
pub struct Log {
    quiet: bool,
    verbose: bool,
    file: Option<Mutex<File>>,
}

impl Log {
    /// A log as it was asked for.
    ///
    /// # Errors
    /// The debug file cannot be written.
    pub fn new(telling: &Telling) -> Result<Self, Misuse> {
        let file = telling.file.as_ref().map(|path| {
            let opened = OpenOptions::new().create(true).append(true).open(path);
            opened.map(Mutex::new).map_err(|error| Misuse(format!("Failed: Unable to create file {}: {error}", path.display())))
        });
        Ok(Self { quiet: telling.quiet, verbose: telling.verbose, file: file.transpose()? })
    }

    /// Why it failed.
    pub fn error(&self, text: &str) {
        self.say("ERROR", text, !self.quiet);
    }

    /// What should be known.
    pub fn warning(&self, text: &str) {
        self.say("WARNING", text, !self.quiet);
    }

    /// What goes on.
    pub fn debug(&self, text: &str) {
        self.say("DEBUG", text, self.verbose);
    }

    fn say(&self, level: &str, text: &str, on_stderr: bool) {
        let line = format!("{:.3} {level}: {}\n", clock::now().wall, text.replace(char::is_control, " "));
        // A log that cannot be written must not stop a fence.
        if on_stderr {
            drop(std::io::stderr().lock().write_all(line.as_bytes()));
        }
        if let Some(file) = &self.file
            && let Ok(mut file) = file.lock()
        {
            drop(file.write_all(line.as_bytes()));
        }
    }
}
