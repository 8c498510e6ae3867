//! The inbound sequence window of a session (IPMI 2.0 §6.12.13): what was heard once is not heard again.

/// How far behind the newest packet a late one may be.
const BEHIND: u32 = 32;

/// Which sequence numbers were seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    newest: u32,
    /// Bit n: `newest - n` was seen.
    seen: u32,
}

impl Window {
    /// Takes the sequence number of a packet *whose authentication code was right*; `false` if it is a replay or too old.
    ///
    /// A gap ahead is no attack (shared network ports lose packets). 0 is accepted until another number was seen: BMCs
    /// exist that never count (ipmisim).
    pub fn take(&mut self, sequence: u32) -> bool {
        if sequence == 0 {
            return self.newest == 0;
        }
        let ahead = sequence.wrapping_sub(self.newest);
        if self.newest == 0 || (ahead != 0 && ahead < 1 << 31) {
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.newest = sequence;
            return true;
        }
        let behind = self.newest.wrapping_sub(sequence);
        if behind >= BEHIND {
            return false;
        }
        let bit = 1u32 << behind;
        let fresh = self.seen & bit == 0;
        self.seen |= bit;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_and_what_becomes_of_them() {
        let table: [(&[u32], &[bool]); 8] = [
            (&[1, 2, 3], &[true, true, true]),
            (&[1, 1], &[true, false]),
            (&[1, 3, 2, 2], &[true, true, true, false]),
            (&[0, 0, 0], &[true, true, true]),
            (&[0, 5, 0], &[true, true, false]),
            (&[100, 69, 68], &[true, true, false]),
            (&[10, 1_000_000, 10], &[true, true, false]),
            (&[u32::MAX, 1, u32::MAX], &[true, true, false]),
        ];
        for (sequences, expected) in table {
            let mut window = Window::default();
            let taken: Vec<bool> = sequences.iter().map(|sequence| window.take(*sequence)).collect();
            assert_eq!(taken, expected, "{sequences:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_but_zero_is_taken_twice(sequences in proptest::collection::vec(1u32..200, 0..200)) {
            let mut window = Window::default();
            let mut taken = std::collections::HashSet::new();
            for sequence in sequences {
                if window.take(sequence) {
                    proptest::prop_assert!(taken.insert(sequence), "{sequence} twice");
                }
            }
        }
    }
}
