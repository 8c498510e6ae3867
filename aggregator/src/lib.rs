//! Picket's central daemon.
