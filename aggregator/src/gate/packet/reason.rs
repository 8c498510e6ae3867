//! Reason codes (MQTT 5 §2.4), as far as the gate says them. MQTT 3.1.1 has a few codes of its own for the same things.

/// Why something was done or not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    Success = 0x00,
    NoSubscription = 0x11,
    Malformed = 0x81,
    Protocol = 0x82,
    Implementation = 0x83,
    Version = 0x84,
    ClientId = 0x85,
    NotAuthorized = 0x87,
    Unavailable = 0x88,
    ShuttingDown = 0x8b,
    AuthenticationMethod = 0x8c,
    KeepAlive = 0x8d,
    TakenOver = 0x8e,
    Filter = 0x8f,
    TopicAlias = 0x94,
    TooLarge = 0x95,
    Quota = 0x97,
    Administrative = 0x98,
    Retain = 0x9a,
    Qos = 0x9b,
    SharedSubscription = 0x9e,
    SubscriptionId = 0xa1,
}

impl Reason {
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    /// The code of a CONNACK in MQTT 3.1.1 (§3.2.2.3), where it has one.
    pub(super) const fn connect_return_code(self) -> Option<u8> {
        match self {
            Self::Version => Some(1),
            Self::ClientId => Some(2),
            Self::Unavailable | Self::Quota => Some(3),
            Self::NotAuthorized => Some(5),
            _ => None,
        }
    }
}
