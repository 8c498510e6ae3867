//! Where session ids, nonces and initialization vectors come from: the operating system, a page at a time.

use std::io;

use crate::ipmi::Random;

/// The operating system's random bytes, fetched by the page.
pub struct SystemRandom {
    page: [u8; 4096],
    used: usize,
}

impl SystemRandom {
    /// Fetches the first page.
    ///
    /// # Errors
    /// The operating system has none.
    pub fn new() -> io::Result<Self> {
        let mut random = Self { page: [0; 4096], used: 0 };
        getrandom::fill(&mut random.page).map_err(io::Error::other)?;
        Ok(random)
    }
}

impl Random for SystemRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.used >= self.page.len() {
                self.used = 0;
                if let Err(error) = getrandom::fill(&mut self.page) {
                    // It worked at the start; without it no key or initialization vector may leave this process.
                    tracing::error!(%error, "no randomness any more");
                    std::process::abort();
                }
            }
            if let Some(random) = self.page.get_mut(self.used) {
                *byte = std::mem::take(random);
            }
            self.used += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_differ_and_go_on_past_a_page() {
        let mut random = SystemRandom::new().unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let mut block = [0u8; 16];
            random.fill(&mut block);
            assert!(seen.insert(block));
        }
    }
}
